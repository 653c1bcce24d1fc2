//! Layers on layers, made by hand: what is below, what comes on top, and the
//! tree that must be there whatever the driver.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;

use check::fsops::Node;
use check::prelude::*;
use tar::{Builder, EntryType, Header};

use super::Store;

/// An entry: a file NAME=CONTENT, a directory NAME/, a symbolic link
/// NAME->TARGET, a hard link NAME=>FILE. Behind a blank the mode.
pub(crate) type Line = &'static str;

/// What is in the directory of a case.
pub(crate) struct Case {
    pub what: &'static str,
    pub below: &'static [Line],
    pub above: &'static [Line],
    /// What is there then, a line a file as in [`shown`].
    pub there: &'static [Line],
}

pub(crate) const CASES: [Case; 15] = [
    Case {
        what: "a name through a link below",
        below: &["opt/ 1777", "opt/a=A", "lnk->opt", "l2->lnk"],
        above: &["l2/b=B"],
        there: &["l2->lnk", "lnk->opt", "opt/ 1777", "opt/a=A", "opt/b=B"],
    },
    Case {
        what: "a name through links to links, up and to nowhere",
        below: &["x/", "x/y/", "x/up->../x/y", "new->made/here"],
        above: &["x/up/z=Z", "new/n=N"],
        there: &[
            "made/",
            "made/here/",
            "made/here/n=N",
            "new->made/here",
            "x/",
            "x/up->../x/y",
            "x/y/",
            "x/y/z=Z",
        ],
    },
    Case {
        what: "a new name of a file with others",
        below: &["a=A 4751", "b=>a", "d/ 700", "d/c=>a"],
        above: &["new=>b"],
        there: &["a=A 4751", "b=>a", "d/ 700", "d/c=>a", "new=>a"],
    },
    Case {
        what: "a new name, through a link, of a file below",
        below: &["d/", "d/s=S 600", "lnk->d", "to->d/s"],
        above: &["e/n=>lnk/s", "same->none", "same=>to"],
        there: &[
            "d/",
            "d/s=S 600",
            "e/",
            "e/n=>d/s",
            "lnk->d",
            "same->d/s",
            "to=>same",
        ],
    },
    Case {
        what: "a whiteout through a link",
        below: &["d/", "d/a=A", "d/b=B", "lnk->d"],
        above: &["lnk/.wh.a="],
        there: &["d/", "d/b=B", "lnk->d"],
    },
    Case {
        what: "a file in the place of a directory",
        below: &["d/", "d/a=A"],
        above: &["d=D"],
        there: &["d=D"],
    },
    Case {
        what: "a directory in the place of a file",
        below: &["d=D"],
        above: &["d/", "d/a=A"],
        there: &["d/", "d/a=A"],
    },
    Case {
        what: "a directory in the place of a link to one",
        below: &["d/", "d/a=A", "lnk->d"],
        above: &["lnk/", "lnk/b=B"],
        there: &["d/", "d/a=A", "lnk/", "lnk/b=B"],
    },
    Case {
        what: "a directory, a file in its place, a directory in its place",
        below: &["d/", "d/old=O"],
        above: &["d=D", "d/", "d/new=N"],
        there: &["d/", "d/new=N"],
    },
    Case {
        what: "something below what was whited out",
        below: &["d/ 700", "d/old=O", "e/", "e/old=O"],
        above: &[".wh.d=", "d/new=N", "e/new=N", ".wh.e="],
        there: &["d/", "d/new=N", "e/", "e/new=N"],
    },
    Case {
        what: "an opaque directory whose mark comes last",
        below: &["d/", "d/s/", "d/s/old=O", "d/x=X", "d/t/", "d/t/y=Y"],
        above: &["d/s/new=N", "d/t/.wh.y=", "k=>d/x", "d/.wh..wh..opq="],
        there: &["d/", "d/s/", "d/s/new=N", "k=X"],
    },
    Case {
        what: "the mode of a directory",
        below: &["d/", "d/a=A"],
        above: &["d/ 1777"],
        there: &["d/ 1777", "d/a=A"],
    },
    Case {
        what: "whiteouts of nothing",
        below: &["d/", "d/a=A"],
        above: &[
            "d/.wh.none=",
            "n/",
            "n/.wh.none=",
            "n/.wh..wh..opq=",
            "n/.wh.more=",
        ],
        there: &["d/", "d/a=A", "n/"],
    },
    Case {
        what: "a whiteout of what the same layer has made",
        below: &["a=A"],
        above: &["a=new", ".wh.a="],
        there: &["a=new"],
    },
    Case {
        what: "files of AUFS's own",
        below: &["a=A"],
        above: &[".wh..wh.aufs=x", ".wh..wh.orph/x=y"],
        there: &["a=A"],
    },
];

/// Layers, and layers on them that must be refused.
pub(crate) const REFUSED: [(&[Line], &[Line]); 8] = [
    (&["file=F"], &["file/x=X"]),
    (&["file=F", "lnk->file"], &["lnk/x=X"]),
    (&["file=F"], &["file/.wh.x="]),
    (&["lnk->lnk"], &["lnk/x=X"]),
    (&["d/"], &["n=>d"]),
    (&["a=A"], &["n=>none"]),
    (&["a=A"], &[".wh.a=", "n=>a"]),
    (&["d/", "d/a=A"], &["d=>d/a"]),
];

/// A tar with these entries below the directory `at`.
pub(crate) fn tar(at: &str, lines: &[Line]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    add(&mut builder, at, lines)?;
    Ok(builder.into_inner()?)
}

fn add(builder: &mut Builder<Vec<u8>>, at: &str, lines: &[Line]) -> Result<()> {
    for line in lines {
        let (entry, mode) = line.split_once(' ').unwrap_or((line, ""));
        let link: String;
        let (kind, name, target, content) = if let Some((name, target)) = entry.split_once("->") {
            (EntryType::Symlink, name, target, "")
        } else if let Some((name, file)) = entry.split_once("=>") {
            link = format!("{at}{file}");
            (EntryType::Link, name, &*link, "")
        } else if let Some((name, content)) = entry.split_once('=') {
            (EntryType::Regular, name, "", content)
        } else {
            (EntryType::Directory, entry, "", "")
        };
        let usual = match kind {
            EntryType::Directory => 0o755,
            _ => 0o644,
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(u32::from_str_radix(mode, 8).unwrap_or(usual));
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.set_link_name_literal(target)?;
        builder.append_data(&mut header, format!("{at}{name}"), content.as_bytes())?;
    }
    Ok(())
}

/// Makes a layer of one part of all cases, each in a directory of its own.
pub(crate) fn layer(
    store: &Store<'_>,
    id: &str,
    parent: &str,
    part: impl Fn(&Case) -> &'static [Line],
) -> Result<Ran> {
    let tar = tar_of_cases(CASES.iter().map(part))?;
    create(store, id, Some(parent), &tar)
}

/// A tar with the entries of each case in a directory of its own: 0, 1, ….
pub(crate) fn tar_of_cases(cases: impl IntoIterator<Item = &'static [Line]>) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (n, lines) in cases.into_iter().enumerate() {
        add(&mut builder, &format!("{n}/"), lines)?;
    }
    Ok(builder.into_inner()?)
}

/// Makes a layer of a tar.
pub(crate) fn create(store: &Store<'_>, id: &str, parent: Option<&str>, tar: &[u8]) -> Result<Ran> {
    let path = store.root.with_extension(id);
    fs::write(&path, tar).context("write a tar")?;
    let mut args = vec![OsStr::new("layer"), OsStr::new("create"), OsStr::new(id)];
    if let Some(parent) = parent {
        args.extend([OsStr::new("--parent"), OsStr::new(parent)]);
    }
    args.extend([OsStr::new("--tar"), path.as_os_str()]);
    store.tool(args).run()
}

/// A tree as lines: those that an archive of it would have.
pub(crate) fn shown(tree: &BTreeMap<String, Node>) -> Vec<String> {
    let line = |(path, node): (&String, &Node)| {
        let (kind, mode) = node.mode.split_at(node.mode.len().saturating_sub(4));
        let mode = mode.trim_start_matches('0');
        let with = |usual: &str| match mode == usual {
            true => String::new(),
            false => format!(" {mode}"),
        };
        match kind {
            "4" => format!("{path}/{}", with("755")),
            _ if node.first_name != *path => format!("{path}=>{}", node.first_name),
            "12" => format!("{path}->{}", node.content),
            _ => format!("{path}={}{}", node.content, with("644")),
        }
    };
    tree.iter().map(line).collect()
}
