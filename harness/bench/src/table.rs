//! Tables of a report.

use comfy_table::Table as Grid;
use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use serde::{Deserialize, Serialize};

/// A table of text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The title.
    pub title: String,
    /// The heads of the columns.
    pub columns: Vec<String>,
    /// The cells, row by row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Table {
            title: title.to_owned(),
            columns: columns.iter().map(|&c| c.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells at its end are empty.
    pub fn row(&mut self, cells: &[&str]) {
        let mut row: Vec<String> = cells.iter().map(|&c| c.to_owned()).collect();
        row.resize(self.columns.len().max(row.len()), String::new());
        self.rows.push(row);
    }

    fn grid(&self) -> Grid {
        let mut grid = Grid::new();
        grid.set_header(&self.columns);
        grid.add_rows(&self.rows);
        grid
    }

    /// The table as text for a terminal.
    pub fn text(&self) -> String {
        let mut grid = self.grid();
        grid.load_style(NOTHING);
        grid.trim_fmt()
    }

    /// The table as Markdown for a page of the book.
    pub fn markdown(&self) -> String {
        let mut grid = Grid::new();
        let plain = |cells: &Vec<String>| -> Vec<String> {
            cells.iter().map(|cell| cell.replace('|', "\\|")).collect()
        };
        grid.set_header(plain(&self.columns));
        grid.add_rows(self.rows.iter().map(plain));
        grid.load_style(ASCII_MARKDOWN);
        grid.trim_fmt()
    }
}
