//! What keeps the house in order: the doors between rooms, and tables that must agree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up; those on one line do not know each other.
const FLOORS: &[&[&str]] = &[
    &["clock", "id"],
    &["mail"],
    &["dns", "events", "smtp"],
    &["directory", "msgauth", "scan", "store"],
    &["journal", "rules"],
    &["pipeline"],
    &["config"],
    &["daemon"],
    &["cli"],
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

/// The rooms that a text names: `crate::room`, and `crate::{room, other::…}`.
fn named_rooms(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + 7..];
        let word = |text: &str| {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        let Some(list) = rest.strip_prefix('{') else {
            rooms.insert(word(rest));
            continue;
        };
        let mut depth = 1;
        let mut start = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => start = true,
                c if start && c.is_alphanumeric() => {
                    rooms.insert(word(&list[at..]));
                    start = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    rooms.into_iter().filter(|room| floor(room).is_some()).collect()
}

#[test]
fn a_room_uses_only_the_rooms_below_it() {
    let mut trespassers = Vec::new();
    for path in files_below(&root().join("src")) {
        let inside = path.strip_prefix(root().join("src")).expect("below src");
        let room = inside.iter().next().expect("a name").to_string_lossy().replace(".rs", "");
        let is_test = inside.iter().any(|part| part.to_string_lossy().starts_with("tests"));
        let Some(own) = floor(&room).filter(|_| !is_test) else { continue };
        let text = fs::read_to_string(&path).expect("reads");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: String = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        for other in named_rooms(&code) {
            if other != room && floor(&other).is_some_and(|floor| floor >= own) {
                trespassers.push(format!("{} uses {other}", inside.display()));
            }
        }
    }
    assert!(trespassers.is_empty(), "{trespassers:#?}");
}

#[test]
fn every_room_has_its_floor() {
    for entry in fs::read_dir(root().join("src")).expect("lists") {
        let name = entry.expect("an entry").file_name().to_string_lossy().replace(".rs", "");
        assert!(matches!(name.as_str(), "main" | "lib") || floor(&name).is_some(), "{name}");
    }
}

#[test]
fn only_these_files_rename_and_sync() {
    let allowed = [
        "store/durable.rs",
        "store/log.rs",
        "store/committer.rs",
        "events/sink.rs",
        "pipeline/refusals.rs",
        "daemon.rs",
    ];
    for path in files_below(&root().join("src")) {
        let text = fs::read_to_string(&path).expect("reads");
        let name = path.strip_prefix(root().join("src")).expect("below src").display().to_string();
        if ["fs::rename", "sync_data", "sync_all"].iter().any(|call| text.contains(call)) {
            assert!(allowed.contains(&name.as_str()), "{name}");
        }
    }
}

#[test]
fn the_readme_lists_every_reason_word() {
    let readme = fs::read_to_string(root().join("README.md")).expect("reads");
    for reason in mailweir::smtp::reason::Reason::all() {
        let row = format!(
            "| `{}` | {} {} | {} |",
            reason.word(),
            reason.code(),
            reason.enhanced(),
            reason.text()
        );
        assert!(readme.contains(&row), "the README has no row\n{row}");
    }
}

#[test]
fn every_fixture_has_its_provenance() {
    let listed = fs::read_to_string(root().join("fixtures/PROVENANCE.md")).expect("reads");
    for path in files_below(&root().join("fixtures")) {
        let name = path.strip_prefix(root().join("fixtures")).expect("below").display().to_string();
        let dir = name.split_once('/').map_or("", |(dir, _)| dir);
        let is_listed =
            listed.contains(&format!("`{name}`")) || listed.contains(&format!("`{dir}/`"));
        assert!(name == "PROVENANCE.md" || is_listed, "{name} is not in PROVENANCE.md");
    }
}

#[test]
fn every_rfc_in_the_code_is_in_the_standards_table() {
    let readme = fs::read_to_string(root().join("README.md")).expect("reads");
    let mut missing = BTreeSet::new();
    for path in files_below(&root().join("src")) {
        let text = fs::read_to_string(&path).expect("reads");
        for (at, _) in text.match_indices("RFC ") {
            let number: String = text[at + 4..].chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() && !readme.contains(&format!("| RFC {number} |")) {
                missing.insert(number);
            }
        }
    }
    assert!(missing.is_empty(), "not in the README's standards table: {missing:?}");
}

#[test]
fn the_unit_is_hardened() {
    let unit = fs::read_to_string(root().join("systemd/mailweir.service")).expect("reads");
    for line in [
        "Type=notify",
        "User=mailweir",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "StateDirectory=mailweir",
        "RestartPreventExitStatus=78",
    ] {
        assert!(unit.lines().any(|found| found == line), "the unit has no {line}");
    }
}
