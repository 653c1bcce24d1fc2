//! Charts as SVG, readable on light and on dark: the text takes the colour of
//! the page, and the colour of each part stands out from both.

use svg::Document;
use svg::node::Text;
use svg::node::element::{Element, Group, Line, Rectangle, Style, Title};

use serde::{Deserialize, Serialize};

use super::stats::Summary;

/// A bar chart: bars from left to right, one below another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// The title.
    pub title: String,
    /// The unit of the axis: `ms`.
    pub unit: String,
    /// The bars, from the top.
    pub bars: Vec<Bar>,
}

/// A bar, of one part or of several in a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// The label, left of the bar.
    pub label: String,
    /// The name and length of each part. A single part needs no name.
    pub parts: Vec<(String, f64)>,
    /// The first and third quartile of the whole.
    pub spread: Option<(f64, f64)>,
}

impl Bar {
    /// The bar of a median, with its quartiles.
    pub fn of(label: &str, summary: &Summary) -> Self {
        Bar {
            label: label.to_owned(),
            parts: vec![(String::new(), summary.median)],
            spread: Some((summary.q1, summary.q3)),
        }
    }

    /// The length of all parts together.
    pub fn length(&self) -> f64 {
        self.parts.iter().map(|(_, length)| length).sum()
    }
}
use super::stats::figure;

/// The left edge of the bars, the length of the longest, the width of the
/// chart.
const LEFT: f64 = 195.0;
const LENGTH: f64 = 440.0;
const WIDTH: f64 = 720.0;

/// The height of a bar with the space below it, and of the bar alone.
const STEP: f64 = 30.0;
const BAR: f64 = 18.0;

/// The top of the first bar.
const TOP: f64 = 46.0;

/// The colours. The book's style sheet repeats them, for its themes.
const STYLE: &str = "
svg { color: #1b1b1b; font-family: sans-serif; background: #ffffff;
  --part-0: #3b76b0; --part-1: #c46a1b; --part-2: #3f8f5f; --part-3: #a64d79; --part-4: #7a6bbf; --part-5: #8a8a8a; }
@media (prefers-color-scheme: dark) { svg { color: #e6e6e6; background: #1c1f26;
  --part-0: #79aee0; --part-1: #e9a15e; --part-2: #74c795; --part-3: #df8fb8; --part-4: #ad9fe8; --part-5: #a8a8a8; } }
text { fill: currentColor; font-size: 14px; }
text.small { font-size: 12px; opacity: 0.85; }
text.title { font-weight: 600; }
text.end { text-anchor: end; }
.axis { stroke: currentColor; stroke-width: 1; opacity: 0.5; }
.spread { stroke: currentColor; stroke-width: 1.5; }
";

/// The chart as a file of its own, with its own colours, which follow the
/// reader's preference.
pub fn standalone(chart: &Chart) -> String {
    let (width, height) = (WIDTH, height(chart));
    let sheet = Style::new(format!("{STYLE}{}", parts()));
    draw(chart)
        .set("width", width)
        .set("height", height)
        .add(sheet)
        .to_string()
}

/// The chart for a page of the book. The book's style sheet colours it.
pub fn inline(chart: &Chart) -> String {
    let text = draw(chart).set("class", "diagram chart").to_string();
    // A blank line would end the HTML in a Markdown page.
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines.join("\n")
}

/// The style rules of the parts.
fn parts() -> String {
    let rule = |n| format!(".part-{n} {{ fill: var(--part-{n}); }}\n");
    (0..6).map(rule).collect()
}

fn height(chart: &Chart) -> f64 {
    let legend = if legend(chart).is_empty() { 0.0 } else { 52.0 };
    TOP + STEP * chart.bars.len() as f64 + 12.0 + legend
}

/// The names of the parts; empty if no bar has more than one.
fn legend(chart: &Chart) -> Vec<&str> {
    let parts = chart.bars.iter().map(|bar| bar.parts.len()).max();
    match chart.bars.first() {
        Some(bar) if parts > Some(1) => bar.parts.iter().map(|(name, _)| name.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn draw(chart: &Chart) -> Document {
    let reach = |bar: &Bar| {
        bar.spread
            .map_or(bar.length(), |(_, high)| high.max(bar.length()))
    };
    let longest = chart
        .bars
        .iter()
        .map(reach)
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = LENGTH / longest;
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH as i32, height(chart) as i32))
        .set("role", "img")
        .add(Title::new(format!("{}, in {}", chart.title, chart.unit)))
        .add(text(
            20.0,
            24.0,
            "title",
            &format!("{}, {}", chart.title, chart.unit),
        ));
    let bottom = TOP + STEP * chart.bars.len() as f64;
    document = document.add(line("axis", LEFT, TOP - 6.0, LEFT, bottom));
    for (number, bar) in chart.bars.iter().enumerate() {
        document = document.add(row(bar, TOP + STEP * number as f64, scale));
    }
    for (number, name) in legend(chart).into_iter().enumerate() {
        let (column, row) = ((number % 3) as f64, (number / 3) as f64);
        let (x, y) = (20.0 + 230.0 * column, bottom + 12.0 + 22.0 * row);
        document = document.add(rectangle(number, x, y, 12.0, 12.0)).add(text(
            x + 18.0,
            y + 11.0,
            "small",
            name,
        ));
    }
    document
}

/// A bar with its label, its spread and its figure.
fn row(bar: &Bar, y: f64, scale: f64) -> Group {
    let mut group = Group::new().add(text(LEFT - 10.0, y + 14.0, "end", &bar.label));
    let mut x = LEFT;
    for (number, (_, length)) in bar.parts.iter().enumerate() {
        group = group.add(rectangle(number, x, y, length * scale, BAR));
        x += length * scale;
    }
    if let Some((low, high)) = bar.spread {
        let (low, high, middle) = (LEFT + low * scale, LEFT + high * scale, y + BAR / 2.0);
        group = group
            .add(line("spread", low, middle, high, middle))
            .add(line("spread", low, y + 4.0, low, y + BAR - 4.0))
            .add(line("spread", high, y + 4.0, high, y + BAR - 4.0));
        x = x.max(high);
    }
    group.add(text(x + 8.0, y + 14.0, "small", &figure(bar.length())))
}

fn rectangle(part: usize, x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new()
        .set("class", format!("part-{part}"))
        .set("x", round(x))
        .set("y", round(y))
        .set("width", round(width.max(0.5)))
        .set("height", height)
}

fn line(class: &str, x1: f64, y1: f64, x2: f64, y2: f64) -> Line {
    Line::new()
        .set("class", class)
        .set("x1", round(x1))
        .set("y1", round(y1))
        .set("x2", round(x2))
        .set("y2", round(y2))
}

fn text(x: f64, y: f64, class: &str, words: &str) -> Element {
    let mut element = Element::new("text");
    for (name, value) in [("x", round(x)), ("y", round(y))] {
        svg::Node::assign(&mut element, name, value);
    }
    svg::Node::assign(&mut element, "class", class);
    svg::Node::append(&mut element, Text::new(words));
    element
}

/// Rounds to a tenth, the finest that a screen shows.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let parts = |a, b| vec![("a < b".to_owned(), a), ("c & d".to_owned(), b)];
        Chart {
            title: "A & B".to_owned(),
            unit: "ms".to_owned(),
            bars: vec![
                Bar {
                    label: "one".to_owned(),
                    parts: parts(1.0, 2.0),
                    spread: Some((2.5, 4.0)),
                },
                Bar {
                    label: "two".to_owned(),
                    parts: parts(0.0, 0.5),
                    spread: None,
                },
            ],
        }
    }

    #[test]
    fn charts_are_xml_in_which_nothing_is_out_of_sight() {
        for svg in [standalone(&chart()), inline(&chart())] {
            let document = roxmltree::Document::parse(&svg).unwrap();
            let rectangles = document.descendants().filter(|n| n.has_tag_name("rect"));
            let mut count = 0;
            for rectangle in rectangles {
                let number = |name| rectangle.attribute(name).unwrap().parse::<f64>().unwrap();
                assert!(number("x") + number("width") <= WIDTH, "{svg}");
                assert!(number("width") > 0.0);
                count += 1;
            }
            assert_eq!(count, 6);
            assert!(svg.contains("A &amp; B"));
        }
    }

    #[test]
    fn a_chart_in_a_page_has_no_blank_line_and_no_colours_of_its_own() {
        let svg = inline(&chart());
        assert!(!svg.contains("\n\n") && !svg.contains("<style"));
        assert!(standalone(&chart()).contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn a_chart_of_nothing_is_a_chart() {
        assert!(roxmltree::Document::parse(&inline(&Chart::default())).is_ok());
    }
}
