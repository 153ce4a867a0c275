//! The reference of events and audit logs: page, schemas and what is written say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::outbound;
use crate::support::daemon::{BINARY, Daemon, text};
use crate::support::pages::{page, root};
use crate::support::swaks::swaks;

/// Each schema, and the folder and start of the golden files that it is for.
const SCHEMAS: &[(&str, &str, &str)] = &[
    ("email-event", "events", ""),
    ("audit-authentication", "audit", "authentication"),
    ("audit-access-control", "audit", "access-control"),
    ("audit-mailbox-access", "audit", "mailbox-access"),
    ("audit-personal-access-token", "audit", "personal-access-token"),
];

fn schema(name: &str) -> Value {
    let text = page(&format!("docs/schema/{name}.json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Holds lines against a schema with a validator that is not ours; its complaints.
fn complaints(name: &str, lines: &str) -> Option<String> {
    let mut validator = Command::new(root().join("target/test-venv/bin/python"))
        .arg(root().join("tests/json_schema.py"))
        .arg(root().join(format!("docs/schema/{name}.json")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tests/setup.sh has made target/test-venv");
    validator.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("writes");
    let output = validator.wait_with_output().expect("ends");
    let told = text(&output.stdout) + &text(&output.stderr);
    let counted = told.contains(&format!("{} lines, ", lines.lines().count()));
    assert!(counted, "not all lines were read: {told}");
    (!output.status.success()).then_some(told)
}

#[track_caller]
fn check(name: &str, lines: &str) {
    assert!(!lines.is_empty(), "nothing to hold against {name}");
    if let Some(told) = complaints(name, lines) {
        panic!("not as docs/schema/{name}.json says:\n{told}");
    }
}

/// The golden lines that a schema is for.
fn golden(folder: &str, start: &str) -> String {
    let dir = root().join("fixtures/golden").join(folder);
    let files = fs::read_dir(dir).expect("lists").map(|entry| entry.expect("an entry").path());
    let is_meant = |path: &std::path::PathBuf| {
        path.file_name().expect("a name").to_string_lossy().starts_with(start)
    };
    files.filter(is_meant).map(|path| fs::read_to_string(path).expect("reads")).collect()
}

#[test]
fn golden_lines_are_as_the_schemas_say() {
    let mut count = 0;
    for (name, folder, start) in SCHEMAS {
        let lines = golden(folder, start);
        check(name, &lines);
        count += lines.lines().count();
    }
    let all = ["events", "audit"].map(|folder| golden(folder, "").lines().count());
    assert_eq!(count, all.iter().sum::<usize>(), "a golden file has no schema");
}

/// Everything that a daemon writes into its event file and audit logs, once it has stopped.
fn written(data: &Path) -> BTreeMap<String, String> {
    let mut written = BTreeMap::new();
    let read = |path: String| {
        let path = data.join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    for (name, ..) in SCHEMAS {
        let text = match name.strip_prefix("audit-") {
            Some(log) if data.join(format!("audit/{log}.jsonl")).exists() => {
                read(format!("audit/{log}.jsonl"))
            }
            Some(_) => String::new(),
            None => read("events/email-events.jsonl".into()),
        };
        written.insert((*name).to_owned(), text);
    }
    written
}

/// Mail with everything that the demonstration has not: rules of mailboxes, `Sender` fields, and
/// what commands do with passwords, tokens and mailboxes.
fn more_mail() -> Daemon {
    let rule = |name: &str, action: &str, subject: &str| {
        format!(
            "[[user.mailbox_rule]]\nname = \"{name}\"\n{action}\ncondition = [{{ field = \
             \"subject\", contains = \"{subject}\" }}]\n"
        )
    };
    let organization = "[journaling]\njournaling_address = \"archive@example.test\"\n\
         report_address = \"admin@example.test\"\n\
         [[permission]]\nowner = \"alice\"\ngrantee = \"bob\"\nsend_on_behalf = true\n\
         [[user]]\nname = \"erin\"\n"
        .to_owned()
        + &rule("moves", "action = \"MOVE\"\nfolder = \"DRAFTS\"", "to move")
        + &rule("forwards", "action = \"FORWARD\"\nto = \"bob@example.test\"", "to forward");
    let far = outbound::far();
    let mut daemon = outbound::daemon(&organization, far.address().port());
    for subject in ["to move", "to forward"] {
        let sender = ["--header", "Sender: secretary@good.test"];
        swaks(&daemon, "bob@good.test", "erin@example.test", subject, &sender).accepted();
    }
    let for_alice = ["--h-From", outbound::ALICE];
    outbound::submit_as(&daemon, outbound::BOB, "carol@far.test", "delegated", &for_alice)
        .accepted();
    outbound::told(&daemon, "delegated", "OUTGOING_EMAIL_SENT");
    daemon.succeeds(&["token", "create", "alice", "--name", "phone"]);
    daemon.succeeds(&["mailbox", "list", "erin"]);
    assert!(daemon.stop().success());
    daemon
}

#[test]
fn what_daemons_write_is_as_the_schemas_say() {
    let demo = tempfile::tempdir().expect("a folder");
    let output = Command::new(BINARY).args(["demo", "--dir"]).arg(demo.path()).output();
    let output = output.expect("runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let daemon = more_mail();
    let mut written = written(&demo.path().join("data"));
    for (name, text) in self::written(&daemon.data()) {
        written.get_mut(&name).expect("the same schemas").push_str(&text);
    }
    for (name, lines) in &written {
        check(name, lines);
    }
    let mut missing: BTreeSet<_> = tables("email-event").iter().flat_map(Table::fields).collect();
    for line in written["email-event"].lines() {
        see(&serde_json::from_str(line).expect("JSON"), &mut missing);
    }
    assert!(missing.is_empty(), "no daemon has written {missing:?}");
}

/// Takes away the names of all fields that a value has.
fn see(value: &Value, missing: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            missing.remove(key);
            see(value, missing);
        }),
        Value::Array(list) => list.iter().for_each(|value| see(value, missing)),
        _ => {}
    }
}

#[test]
fn the_schemas_refuse_what_they_do_not_name() {
    for (name, folder, start) in SCHEMAS {
        let mut lines = String::new();
        for line in golden(folder, start).lines() {
            let wrong = wrong(&serde_json::from_str(line).expect("JSON"));
            wrong.iter().for_each(|wrong| lines += &format!("{wrong}\n"));
        }
        let count = lines.lines().count();
        let told = complaints(name, &lines).unwrap_or_else(|| panic!("{name} takes {lines}"));
        assert!(told.ends_with(&format!("{count} lines, {count} bad\n")), "{name}: {told}");
    }
}

/// A line with a field more at each level, and without its first field.
fn wrong(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    let mut more = value.clone();
    more["more"] = 1.into();
    all.push(more);
    if value["event"].is_object() {
        let mut more = value.clone();
        more["event"]["more"] = 1.into();
        all.push(more);
        let mut other = value.clone();
        other["event"]["eventName"] = "EMAIL_LOST".into();
        all.push(other);
    }
    let time = if value["event"].is_object() { "eventTimestamp" } else { "event_timestamp" };
    let mut less = value.clone();
    less.as_object_mut().expect("an object").remove(time).expect("each line has it");
    all.push(less);
    all
}

/// A part of a schema as the page shows it.
struct Table {
    title: String,
    text: String,
    rows: Vec<(String, Value)>,
    required: Vec<String>,
}

impl Table {
    fn fields(&self) -> Vec<String> {
        self.rows.iter().map(|(name, _)| name.clone()).collect()
    }

    fn render(&self, level: &str) -> String {
        let Self { title, text, rows, required } = self;
        let mut out = format!("{level} {title}\n\n{text}\n\n");
        out += "| field | type | when | meaning | source |\n|---|---|---|---|---|\n";
        for (name, field) in rows {
            let say = |key: &str| field[key].as_str().unwrap_or_else(|| panic!("{name}: {key}"));
            let when = say("x-when");
            let is_always = required.contains(name);
            assert_eq!(is_always, when == "always", "{title}: {name} is required or not: {when}");
            let values: Vec<_> = field["enum"].as_array().into_iter().flatten().collect();
            let mut meaning = say("description").to_owned();
            if !values.is_empty() {
                let values: Vec<_> =
                    values.iter().map(|it| format!("`{}`", it.as_str().expect("a text"))).collect();
                write!(meaning, " One of {}.", values.join(", ")).expect("a text");
            }
            let kind = kind(field);
            writeln!(out, "| `{name}` | {kind} | {when} | {meaning} | {} |", say("x-source"))
                .expect("a text");
        }
        out
    }
}

/// The type of a field in words.
fn kind(field: &Value) -> String {
    let named = |reference: &Value| {
        let name = reference.as_str().expect("a text").trim_start_matches("#/$defs/");
        format!("[`{name}`](#{})", name.to_lowercase())
    };
    match field["type"].as_str() {
        Some("array") if field["items"]["$ref"].is_string() => {
            format!("array of {}", named(&field["items"]["$ref"]))
        }
        Some("array") => format!("array of {}", field["items"]["type"].as_str().expect("a type")),
        Some(kind) => kind.to_owned(),
        None if field["const"].is_string() => "string".to_owned(),
        None if field["oneOf"].is_array() => "object".to_owned(),
        None => named(&field["$ref"]),
    }
}

/// The members of an object in the order of the file.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Members {
    fn of(json: &str) -> Self {
        serde_json::from_str(json).expect("an object")
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }
}

/// The parts of a schema: the line itself, then what is defined in it.
fn tables(name: &str) -> Vec<Table> {
    let file = page(&format!("docs/schema/{name}.json"));
    let whole = Members::of(&file);
    let defined = whole.get("$defs").map(Members::of);
    let parts = defined.iter().flat_map(|defined| &defined.0);
    let mut tables = vec![table("Every line", &whole)];
    tables.extend(parts.map(|(title, part)| table(title, &Members::of(part.get()))));
    tables
}

fn table(title: &str, part: &Members) -> Table {
    let member = |name: &str| part.get(name).unwrap_or_else(|| panic!("{title}: no {name}"));
    let parsed = |json: &str| serde_json::from_str::<Value>(json).expect("JSON");
    assert_eq!(member("additionalProperties"), "false", "{title}");
    let rows = Members::of(member("properties")).0;
    Table {
        title: title.to_owned(),
        text: parsed(member("description")).as_str().expect("a text").to_owned(),
        rows: rows.into_iter().map(|(name, field)| (name, parsed(field.get()))).collect(),
        required: serde_json::from_str(member("required")).expect("names"),
    }
}

/// What follows on the page is made from the schemas.
const MADE: &str = "<!-- From here on made from docs/schema by `MAILWEIR_WRITE_GOLDEN=1 cargo t \
                    --test it schemas::the_page`. -->\n";

#[test]
fn the_page_has_every_field_as_the_schemas_have_it() {
    let page = page("docs/events.md");
    let (kept, found) = page.split_once(MADE).expect("the page has a part that is made");
    let mut made = String::new();
    for (name, ..) in SCHEMAS {
        let tables = tables(name);
        if name.starts_with("audit-") {
            let title = schema(name)["title"].as_str().expect("a title").to_owned();
            let [line] = tables.try_into().ok().expect("one part");
            made += &format!("\n{}", Table { title, ..line }.render("###"));
            continue;
        }
        made += "\n## Email events, field by field\n";
        for table in tables {
            made += &format!("\n{}", table.render("###"));
        }
        made += "\n## Audit logs, field by field\n";
    }
    if std::env::var_os("MAILWEIR_WRITE_GOLDEN").is_some() {
        fs::write(root().join("docs/events.md"), format!("{kept}{MADE}{made}")).expect("writes");
        return;
    }
    assert_eq!(found, made, "docs/events.md is not what docs/schema says");
    let names: BTreeSet<_> = tables("email-event").into_iter().map(|it| it.title).collect();
    for file in fs::read_dir(root().join("fixtures/golden/events")).expect("lists") {
        let name = file.expect("an entry").file_name().to_string_lossy().into_owned();
        let event = name.split('.').next().expect("a name");
        assert!(names.contains(event), "{event} is not described");
    }
}
