use std::time::Duration;

use super::*;
use crate::id::{EntityId, EntityKind, TraceId};
use crate::soon::done;

const MORNING: Timestamp = Timestamp::from_millis(1_795_235_486_123);
const DAY: Duration = Duration::from_secs(86_400);

fn line(at: Timestamp) -> AuditLine {
    let occasion = Occasion::new(at, TraceId::generate(), Some("m-1".into()), None);
    let owner = EntityId::of_first(EntityKind::User, "m-1", "alice");
    MailboxAccess::delivered(occasion, None, owner, "INBOX").into()
}

fn text(at: Timestamp) -> Vec<u8> {
    let mut text = Vec::new();
    line(at).write_to(&ArnSettings::default(), &mut text);
    text
}

fn opened(dir: &Path) -> AuditLog {
    AuditLog::open(dir, Settings::default(), ArnSettings::default()).expect("opens")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("lists");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("mailbox-access"))
        .collect();
    names.sort();
    names
}

fn moments(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).expect("reads");
    let parse = |line| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    text.lines().filter_map(|line| parse(line)["event_timestamp"].as_u64()).collect()
}

#[test]
fn each_kind_has_its_file_and_all_is_written_at_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = opened(&dir.path().join("audit"));
    for second in 0..1000 {
        log.record(line(MORNING.plus(Duration::from_secs(second))));
    }
    drop(log);
    let audit = dir.path().join("audit");
    let written = moments(&audit.join("mailbox-access.jsonl"));
    assert_eq!(written.len(), 1000);
    assert!(written.is_sorted());
    for kind in LogType::ALL {
        assert!(audit.join(format!("{}.jsonl", kind.as_str())).exists(), "{kind:?}");
    }
}

/// A message to a large group makes far more lines at once than wait for the disk.
#[test]
fn no_line_of_a_flood_is_lost() {
    const FLOOD: u64 = 10 * WAITING as u64;
    let dir = tempfile::tempdir().expect("a folder");
    let log = opened(dir.path());
    let lines = (0..FLOOD).map(|number| line(MORNING.plus(Duration::from_millis(number))));
    let lines: Vec<_> = lines.collect();
    done("the end of the flood", move || {
        log.record_all(lines);
        drop(log);
    });
    let written = moments(&dir.path().join("mailbox-access.jsonl"));
    let expected: Vec<_> = (0..FLOOD).map(|number| MORNING.as_millis() + number).collect();
    assert!(written == expected, "{} of {FLOOD}", written.len());
}

/// Many tasks at once on few threads, and on the only one.
#[test]
fn no_line_of_a_flood_of_tasks_is_lost() {
    const TASKS: usize = 20;
    let builders = [
        tokio::runtime::Builder::new_multi_thread as fn() -> _,
        tokio::runtime::Builder::new_current_thread,
    ];
    for builder in builders {
        let dir = tempfile::tempdir().expect("a folder");
        let log = std::sync::Arc::new(opened(dir.path()));
        let runtime = builder().worker_threads(2).build().expect("starts");
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let log = std::sync::Arc::clone(&log);
                runtime.spawn(async move {
                    (0..WAITING).for_each(|_| log.record(line(MORNING)));
                })
            })
            .collect();
        done("the end of the tasks", move || {
            runtime.block_on(async {
                for task in tasks {
                    task.await.expect("ends");
                }
            });
        });
        let log = std::sync::Arc::into_inner(log).expect("nobody else has it");
        done("the end of the log", move || drop(log));
        let written = moments(&dir.path().join("mailbox-access.jsonl"));
        assert_eq!(written.len(), TASKS * WAITING);
    }
}

#[test]
fn a_file_is_rotated_each_day_and_by_size_and_kept_for_a_while() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings { max_file_bytes: 1000, retention_days: 2 };
    let kind = LogType::MailboxAccess;
    let mut file = AuditFile::open(dir.path(), kind, settings).expect("opens");
    for at in [MORNING, MORNING.plus(DAY)] {
        file.append(&text(at), at).expect("appends");
    }
    let rotated = "mailbox-access.2026-11-21.jsonl";
    assert_eq!(names(dir.path()), [rotated, "mailbox-access.jsonl"]);
    assert_eq!(moments(&dir.path().join(rotated)), [MORNING.as_millis()]);

    let next = MORNING.plus(DAY);
    let big = text(next).repeat(5);
    file.append(&big, next).expect("appends");
    // Opened again, it knows where it was.
    let mut file = AuditFile::open(dir.path(), kind, settings).expect("opens");
    file.append(&text(next), next).expect("appends");
    let second = "mailbox-access.2026-11-22.jsonl";
    assert_eq!(names(dir.path()), [rotated, second, "mailbox-access.jsonl"]);

    let later = MORNING.plus(DAY * 3);
    file.append(&text(later), later).expect("appends");
    assert_eq!(
        names(dir.path()),
        ["mailbox-access.2026-11-22.0001.jsonl", second, "mailbox-access.jsonl"],
        "the first day is past its two days"
    );
}

#[test]
fn a_command_appends_beside_the_daemon() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = opened(dir.path());
    let arns = ArnSettings::default();
    append(dir.path(), &arns, line(MORNING)).expect("appends");
    log.record(line(MORNING.plus(DAY / 1000)));
    drop(log);
    assert_eq!(moments(&dir.path().join("mailbox-access.jsonl")).len(), 2);
    let fresh = dir.path().join("fresh/audit");
    append(&fresh, &arns, line(MORNING)).expect("makes the folder");
    assert_eq!(moments(&fresh.join("mailbox-access.jsonl")).len(), 1);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody else moves the file")]
fn a_file_that_was_moved_away_is_begun_anew_and_an_old_one_deleted() {
    let dir = tempfile::tempdir().expect("a folder");
    let kind = LogType::MailboxAccess;
    let settings = Settings { retention_days: 2, ..Settings::default() };
    let mut file = AuditFile::open(dir.path(), kind, settings).expect("opens");
    file.append(&text(MORNING), MORNING).expect("appends");
    let (current, moved) =
        (dir.path().join("mailbox-access.jsonl"), dir.path().join("mailbox-access.jsonl.1"));
    std::fs::rename(&current, &moved).expect("moves");
    let later = MORNING.plus(Duration::from_secs(1));
    file.append(&text(later), later).expect("appends");
    assert_eq!(moments(&current), [later.as_millis()]);
    assert_eq!(moments(&moved), [MORNING.as_millis()]);
    std::fs::remove_file(&moved).expect("removes");
    file.delete_expired(MORNING.plus(DAY * 2)).expect("deletes");
    assert_eq!(moments(&current), [later.as_millis()]);
    file.delete_expired(MORNING.plus(DAY * 3)).expect("deletes");
    assert!(moments(&current).is_empty());
    assert_eq!(names(dir.path()), ["mailbox-access.jsonl"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody else moves the file")]
fn files_are_begun_anew_when_asked_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = opened(dir.path());
    let current = dir.path().join("mailbox-access.jsonl");
    std::fs::rename(&current, dir.path().join("mailbox-access.jsonl.1")).expect("moves");
    log.reopen();
    drop(log);
    assert!(current.exists());
}
