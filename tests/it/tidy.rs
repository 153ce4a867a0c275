//! What keeps the house in order: the doors between rooms, and tables that must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rooms from the ground up; those on one line do not know each other.
const FLOORS: &[&[&str]] = &[
    &["clock", "files", "fuzz", "heavy", "id", "memory", "soon"],
    &["mail"],
    &["dns", "events", "smtp"],
    &["directory", "msgauth", "scan", "store"],
    &["domains"],
    &["journal", "queue", "rules"],
    &["organization"],
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

/// The rooms that a text names.
fn named_rooms(text: &str) -> BTreeSet<String> {
    names_after("crate::", text).into_iter().filter(|room| floor(room).is_some()).collect()
}

/// What a text names behind a door: `crate::room`, and `crate::{room, other::…}`.
fn names_after(door: &str, text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(door) {
        // Of `super::super::` the second is not one step up, but part of two.
        if text[..at].ends_with("super::") {
            continue;
        }
        let rest = &text[at + door.len()..];
        let word = |text: &str| {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        let Some(list) = rest.strip_prefix('{') else {
            names.insert(word(rest));
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
                    names.insert(word(&list[at..]));
                    start = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

#[test]
fn a_room_uses_only_the_rooms_below_it() {
    let mut trespassers = Vec::new();
    for path in files_below(&root().join("src")) {
        let inside = path.strip_prefix(root().join("src")).expect("below src");
        let room = inside.iter().next().expect("a name").to_string_lossy().replace(".rs", "");
        let is_test = inside.iter().any(|part| part.to_string_lossy().starts_with("tests"));
        let Some(own) = floor(&room).filter(|_| !is_test) else { continue };
        for other in named_rooms(&code_of(&path)) {
            if other != room && floor(&other).is_some_and(|floor| floor >= own) {
                trespassers.push(format!("{} uses {other}", inside.display()));
            }
        }
    }
    assert!(trespassers.is_empty(), "{trespassers:#?}");
}

/// Rooms whose files may still use each other in a circle.
const WITH_CIRCLES: &[&str] = &["store"];

/// The files of a room that one of them uses: `super::name` where it stands in the room itself, and
/// `crate::room::name` anywhere. A folder beside a file counts as that file.
fn used_files(room: &str, inside: &Path, files: &BTreeSet<String>) -> BTreeSet<String> {
    let code = code_of(&root().join("src").join(inside));
    // One step up from a file in the room, two from one in a folder of it.
    let up = "super::".repeat(inside.components().count() - 1);
    let named = names_after(&up, &code).into_iter();
    let named = named.chain(names_after(&format!("crate::{room}::"), &code));
    named.filter(|name| files.contains(name)).collect()
}

/// A file's code: without comments, and without the module of tests at its end.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("reads");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn files_of_a_room_use_each_other_in_one_direction() {
    let mut circles = Vec::new();
    for room in FLOORS.iter().copied().flatten().filter(|room| !WITH_CIRCLES.contains(room)) {
        let folder = root().join("src").join(room);
        if !folder.is_dir() {
            continue;
        }
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let paths = files_below(&folder);
        let inside = |path: &Path| path.strip_prefix(root().join("src")).expect("below").to_owned();
        // `room/name.rs` and what is in `room/name/` are one file of the room.
        let name_of = |inside: &Path| {
            let name = inside.iter().nth(1).expect("a name").to_string_lossy();
            name.trim_end_matches(".rs").to_owned()
        };
        let files: BTreeSet<String> = paths.iter().map(|path| name_of(&inside(path))).collect();
        for path in &paths {
            let inside = inside(path);
            let name = name_of(&inside);
            let is_test = inside.iter().any(|part| part.to_string_lossy().contains("tests"));
            if !is_test && name != "mod" && name != "fuzz" {
                uses.entry(name).or_default().extend(used_files(room, &inside, &files));
            }
        }
        // Take away files that use none of those left; what remains stands in circles, or above one.
        while let Some(name) = uses
            .iter()
            .find(|(name, used)| used.iter().all(|used| used == *name || !uses.contains_key(used)))
            .map(|(name, _)| name.clone())
        {
            uses.remove(&name);
        }
        if !uses.is_empty() {
            circles.push(format!("{room}: {uses:?}"));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

/// The floors of the pipeline, the lowest first. A message goes up once: what is known of it, its way
/// in or out, where it goes, and what is written down.
const PIPELINE_FLOORS: [&str; 5] = ["facts", "outbound", "inbound", "delivery", "record"];

#[test]
fn a_floor_of_the_pipeline_uses_only_those_below_it() {
    let pipeline = root().join("src/pipeline");
    let mut climbing = Vec::new();
    for (height, floor) in PIPELINE_FLOORS.iter().enumerate() {
        for path in files_below(&pipeline.join(floor)) {
            let text = fs::read_to_string(&path).expect("reads");
            let used = text.split("crate::pipeline::").skip(1);
            let used =
                used.map(|rest| rest.split(|c: char| !c.is_alphabetic()).next().unwrap_or(""));
            for other in used.filter(|other| PIPELINE_FLOORS[height + 1..].contains(other)) {
                climbing.push(format!("{} uses {other}", path.display()));
            }
        }
    }
    assert!(climbing.is_empty(), "{climbing:#?}");
    for entry in fs::read_dir(&pipeline).expect("lists") {
        let name = entry.expect("an entry").file_name().to_string_lossy().replace(".rs", "");
        let stands_above = ["mod", "conversation", "fuzz", "tests", "way_tests"].contains(&&*name);
        assert!(stands_above || PIPELINE_FLOORS.contains(&&*name), "{name} has no floor");
    }
}

/// The cells of the rows of ARCHITECTURE.md's tables of stages, that is of tables with a value.
fn stages() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("reads");
    let mut rows = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        is_inside =
            line.starts_with("| stage | file | value") || is_inside && line.starts_with('|');
        if is_inside {
            rows.push(line.split('|').map(|cell| cell.trim().to_owned()).collect());
        }
    }
    rows
}

/// The structs of a text: each one's name, and all that stands between its name and its end.
fn structs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("struct ").skip(1).filter_map(|rest| {
        let name = rest.split(|c: char| !c.is_alphanumeric()).next()?;
        // An item ends where a line begins with a bracket, or with a semicolon.
        let end = rest.find("\n}").into_iter().chain(rest.find(";\n")).min()?;
        Some((name, &rest[..end]))
    })
}

#[test]
fn only_the_file_of_a_stage_can_make_or_change_what_it_makes() {
    let src = root().join("src");
    let mut files = BTreeSet::new();
    let mut values = BTreeSet::new();
    for row in stages() {
        let ticked = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let named: Vec<String> = ticked(&row[2]);
        files.extend(named.into_iter().filter(|file| file.starts_with("pipeline/")));
        let named: Vec<String> = ticked(&row[3]);
        values.extend(named);
    }
    for value in ["Signed", "Accesses", "Composed", "Transaction", "Admitted"] {
        assert!(values.contains(value), "{value} is no stage in ARCHITECTURE.md");
    }
    files.remove("pipeline/facts/transaction.rs"); // Only one of its types is a stage's.
    let mut found = BTreeSet::new();
    let mut open = Vec::new();
    for path in files_below(&src.join("pipeline")) {
        let text = fs::read_to_string(&path).expect("reads");
        let name = path.strip_prefix(&src).expect("below src").display().to_string();
        for (value, body) in structs(&text) {
            let is_value = values.contains(value);
            if is_value {
                found.insert(value.to_owned());
            }
            let mut lines = body.lines();
            let is_open = lines.next().is_some_and(|line| line.contains("(pub"))
                || lines.any(|line| line.trim_start().starts_with("pub"));
            if is_open && (is_value || files.contains(&name)) {
                open.push(format!("{name}: {value}"));
            }
        }
    }
    assert!(open.is_empty(), "stages with fields for all: {open:#?}");
    // These are other rooms', or no struct.
    let elsewhere = ["Step", "Reserved"].map(str::to_owned);
    let missing: Vec<_> = values.difference(&found).filter(|it| !elsewhere.contains(it)).collect();
    assert!(missing.is_empty(), "no file of the pipeline makes {missing:?}");
}

/// A message comes by one of two roads, and whoever asks has to say what holds on either.
#[test]
fn nobody_asks_whether_there_is_an_outbound_half() {
    let mut asking = Vec::new();
    for path in files_below(&root().join("src/pipeline")) {
        let text = fs::read_to_string(&path).expect("reads");
        for part in
            ["Option<Box<Outgoing>>", "Option<&Outgoing>", "outgoing.is_some", " outgoing: Option<"]
        {
            if text.contains(part) {
                asking.push(format!("{}: {part}", path.display()));
            }
        }
    }
    assert!(asking.is_empty(), "{asking:#?}");
}

#[test]
fn every_room_has_its_floor() {
    for entry in fs::read_dir(root().join("src")).expect("lists") {
        let name = entry.expect("an entry").file_name().to_string_lossy().replace(".rs", "");
        assert!(matches!(name.as_str(), "main" | "lib") || floor(&name).is_some(), "{name}");
    }
}

#[test]
fn only_these_files_rename_truncate_and_sync() {
    let allowed = [
        "daemon.rs",
        "events/audit/file.rs",
        "events/sink.rs",
        "pipeline/record/refusals.rs",
        "store/durable.rs",
        "store/log.rs",
    ];
    let calls = ["fs::rename(", "set_len(", "sync_data(", "sync_all("];
    let mut found = Vec::new();
    for path in files_below(&root().join("src")) {
        let text = fs::read_to_string(&path).expect("reads");
        let name = path.strip_prefix(root().join("src")).expect("below src").display().to_string();
        if !name.contains("tests") && calls.iter().any(|call| text.contains(call)) {
            found.push(name);
        }
    }
    assert_eq!(found, allowed);
}

#[test]
fn the_page_of_refusals_lists_every_reason_word() {
    let page = fs::read_to_string(root().join("docs/refusals.md")).expect("reads");
    let expected: Vec<_> = mailweir::smtp::reason::Reason::all()
        .map(|reason| {
            let (word, code) = (reason.word(), reason.code());
            format!("| `{word}` | {code} {} | {} |", reason.enhanced(), reason.text())
        })
        .collect();
    let found: Vec<_> = page.lines().filter(|line| is_reason_row(line)).collect();
    assert_eq!(found.len(), expected.len(), "the page has a row for each word and no other");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.starts_with(expected), "expected\n{expected}\nfound\n{found}");
    }
}

/// A row whose second cell is a reply code with its enhanced status code.
fn is_reason_row(line: &str) -> bool {
    let mut cells = line.split('|').skip(1).map(str::trim);
    let is_word = cells.next().is_some_and(|cell| cell.starts_with('`'));
    let code = cells.next().unwrap_or_default().split_once(' ');
    is_word
        && code.is_some_and(|(basic, enhanced)| {
            basic.parse::<u16>().is_ok() && enhanced.split('.').count() == 3
        })
}

#[test]
fn no_file_names_a_folder_of_somebodys_machine() {
    let mut list = Command::new("git");
    let list =
        list.args(["ls-files", "-z"]).current_dir(root()).output().expect("git is installed");
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    // Put together here, so that this file does not name them either.
    let folders = ["home", "root", "work", "Users"].map(|name| format!("/{name}/"));
    let mut found = Vec::new();
    for name in list.stdout.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let Ok(text) = fs::read(root().join(&name)) else { continue }; // Deleted, not committed.
        let text = String::from_utf8_lossy(&text);
        for (number, line) in text.lines().enumerate() {
            let is_absolute = |folder: &String| {
                line.match_indices(folder.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}>~/".contains(c))
                })
            };
            if folders.iter().any(is_absolute) {
                found.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
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
    let standards = fs::read_to_string(root().join("docs/standards.md")).expect("reads");
    let mut missing = BTreeSet::new();
    for path in files_below(&root().join("src")) {
        let text = fs::read_to_string(&path).expect("reads");
        for (at, _) in text.match_indices("RFC ") {
            let number: String = text[at + 4..].chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() && !standards.contains(&format!("| RFC {number} |")) {
                missing.insert(number);
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/standards.md: {missing:?}");
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

#[test]
fn the_readme_is_short_and_every_page_is_listed() {
    let readme = fs::read(root().join("README.md")).expect("reads");
    assert!(readme.len() <= 8 * 1024, "README.md has {} bytes", readme.len());
    let contents = fs::read_to_string(root().join("docs/README.md")).expect("reads");
    for path in files_below(&root().join("docs")) {
        let name = path.file_name().expect("a name").to_string_lossy();
        let is_page = name.ends_with(".md") && name != "README.md";
        assert!(
            !is_page || contents.contains(&format!("({name})")),
            "docs/README.md misses {name}"
        );
    }
}

/// Runs `tests/setup.sh --check` with programs that stand in for those of these names.
fn check_of_setup(shims: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, script) in shims {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let path = std::env::var("PATH").expect("a path");
    let output = Command::new(root().join("tests/setup.sh"))
        .arg("--check")
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .output()
        .expect("runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn what_the_tests_need_is_told_before_they_start() {
    let user = ("id", "echo 1000");
    let (status, told) = check_of_setup(&[user, ("sudo", "exit 1")]);
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("This needs root"), "{told}");
    let (status, told) = check_of_setup(&[user, ("sudo", "[ $1 = -n ] && shift && exec \"$@\"")]);
    assert_eq!(status, Some(0), "{told}");
    // A module that is missing is named with its package, and nothing is installed yet.
    let (status, told) = check_of_setup(&[("perl", "exit 1"), ("apt-get", "echo called; exit 1")]);
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("as root: libio-socket-ssl-perl libnet-ssleay-perl\n"), "{told}");
    assert!(!told.contains("called"), "{told}");
}

#[test]
fn the_licences_are_there_in_full() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("reads");
    assert!(manifest.contains("\nlicense = \"Apache-2.0 OR MIT\"\n"));
    let parts: [(&str, &[&str]); 2] = [
        ("LICENSE-APACHE", &["Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"]),
        ("LICENSE-MIT", &["Permission is hereby granted", "DEALINGS IN THE\nSOFTWARE."]),
    ];
    for (name, parts) in parts {
        let text = fs::read_to_string(root().join(name)).expect("reads");
        for part in parts.iter().chain(&["The Mailweir developers"]) {
            assert!(text.contains(part), "{name} has no {part:?}");
        }
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let names = ["README.md", "ARCHITECTURE.md", "SECURITY.md"];
    let mut pages: Vec<_> = names.iter().map(|name| root().join(name)).collect();
    pages.extend(files_below(&root().join("docs")));
    pages.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).expect("reads");
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains(':') {
                continue;
            }
            if !page.parent().expect("a folder").join(target).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
