//! The worst messages that are read at all: each shape costs some step of the path the most that a
//! message can. Two networks send them, while honest mail must keep flowing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Report, Scene, honest, honest_traffic, join, settle};
use crate::peer::Sources;
use crate::traffic::{Traffic, ms, small_message};
use crate::{gauge, process};

const ATTACKERS: Sources = Sources { first: 0, networks: 2 };
/// Room in a header section of 512 KiB, which is the default, beside the fields of [`FRONT`].
const HEADER: usize = 500 << 10;
/// Nearly as many fields as a header section may have.
const FIELDS: usize = 1900;
/// Near the largest message that is taken.
const BODY: usize = 38 << 20;
const MIB: u64 = 1 << 20;
/// What an innocent sender may wait for a 250, in ms at p99.
const WAIT_MS: f64 = 250.0;
/// What the daemon may need beside the messages themselves.
const BESIDE: u64 = 64 * MIB;
/// What the few messages of a short run may need: memory that was freed a moment ago is not given
/// back yet.
const BESIDE_QUICK: u64 = 128 * MIB;

const FRONT: &str = "From: Eve <eve@good.test>\r\nTo: alice@example.test\r\nSubject: x\r\n";

/// A way to make a message dear: its name, and the message before its end.
type Shape = (&'static str, fn() -> String);

const SHAPES: [Shape; 15] = [
    ("authors", authors),
    ("nested comment", || with_field("From", &format!("{}{} e@good.test", open(), close()))),
    ("encoded subject", || with_field("Subject", &"=?utf-8?b?w7zDvMO8?= ".repeat(HEADER / 21))),
    ("recipients in To", || with_field("To", &"a@b.test, ".repeat(HEADER / 10))),
    ("long fields", || with_fields(&folded("A:"))),
    ("lines that are no fields", || with_fields(&folded("a\r\n Sender"))),
    ("forged results", || with_fields(&folded("Authentication-Results: mx.example.test;"))),
    ("signatures over many fields", signatures),
    ("names in h=", || signed(&"a:".repeat(HEADER / 2), "")),
    ("MIME parts", || multipart("\r\n--b\r\nContent-Disposition: attachment\r\n")),
    ("nested MIME", nested),
    ("lines like delimiters", || multipart("\r\n--c")),
    ("lines like delimiters in many multiparts", || {
        // The message itself stands around them too.
        let allowed = 5_000_000 / 50 - 200;
        format!("{FRONT}{}\r\n{}", multiparts(49), "--\r\n".repeat(allowed) + &lines(BODY / 2))
    }),
    ("large", || format!("{FRONT}\r\n{}", lines(BODY))),
    ("large forged", || {
        format!("Authentication-Results: mx.example.test; x\r\n{FRONT}\r\n{}", lines(BODY))
    }),
];

pub(super) fn run(scene: &Scene<'_>) -> anyhow::Result<Report> {
    let (daemon, start) = scene.daemon("")?;
    let time = Duration::from_secs(scene.choose(1, 5));
    let alone = honest(&daemon, time)?;
    let mut report = Report::new(format!("alone {alone}"));
    let used = if scene.quick { 3 } else { SHAPES.len() };
    let is_wanted = |(name, _): &Shape| name.starts_with(scene.part);
    for (name, message) in SHAPES.into_iter().take(used).filter(is_wanted) {
        let message: Arc<[u8]> = format!("{}\r\n.\r\n", message()).into_bytes().into();
        settle();
        gauge::reset_peak(daemon.pid())?;
        let attack = Traffic {
            to: daemon.address(),
            sources: ATTACKERS,
            connections: ATTACKERS.networks,
            pause: Duration::ZERO,
            message: Arc::clone(&message),
            until: Instant::now() + time,
        };
        let attacking = attack.spawn_elsewhere("worst")?;
        let beside = join(honest_traffic(&daemon, time).spawn("honest")?)?;
        let worst = join(attacking)?;
        let peak = process::peak_memory(daemon.pid())?;
        let own = (message.len() * ATTACKERS.networks) as u64;
        let grown = peak.saturating_sub(start.memory);
        report.line.push_str(&format!(
            "\n  {name} ({} KiB each): {worst}; beside them {beside}; {} MiB beside their own {}",
            message.len() >> 10,
            grown.saturating_sub(own) / MIB,
            own / MIB,
        ));
        let claim = |what: &str| format!("{name}: {what}");
        report.claim(
            ms(&beside.accepted, 99) < scene.choose(10.0 * WAIT_MS, WAIT_MS),
            &claim("others have their 250 in time"),
        );
        report.claim(beside.reasons.is_empty() && beside.broken == 0, &claim("none is refused"));
        report.claim(!beside.accepted.is_empty(), &claim("others are served"));
        report
            .claim(grown <= own + scene.choose(BESIDE_QUICK, BESIDE), &claim("memory is bounded"));
    }
    Ok(report)
}

fn open() -> String {
    "(".repeat(HEADER / 2)
}

fn close() -> String {
    ")".repeat(HEADER / 2)
}

fn authors() -> String {
    format!("From: {}eve@good.test\r\nSubject: x\r\n\r\nbody", "e@good.test,\r\n ".repeat(99))
}

/// A message in which one field has this value.
fn with_field(name: &str, value: &str) -> String {
    let folded = value.as_bytes().chunks(900).map(String::from_utf8_lossy);
    let value = folded.collect::<Vec<_>>().join("\r\n ");
    let others = FRONT.lines().filter(|line| !line.starts_with(&format!("{name}:")));
    let others: String = others.map(|line| format!("{line}\r\n")).collect();
    format!("{name}: {value}\r\n{others}\r\nbody")
}

/// A field that begins so, in as many lines as it may have where there are as many fields as may be.
fn folded(front: &str) -> String {
    let length = HEADER / FIELDS;
    format!("{front}{}\r\n", "\r\n b".repeat(length.saturating_sub(front.len() + 2) / 4))
}

/// A message with as many of this field as may be.
fn with_fields(field: &str) -> String {
    format!("{FRONT}{}\r\nbody", field.repeat(FIELDS))
}

/// The message of the honest mail with a signature of our making instead of its own: the body is
/// the one that the signature says, so that its fields are looked at.
fn signed(names: &str, fields: &str) -> String {
    let message = String::from_utf8_lossy(&small_message()).into_owned();
    let body = message.trim_end_matches(".\r\n").split_once("\r\n\r\n").map_or("", |it| it.1);
    let hash = message.split_once("bh=").and_then(|(_, rest)| rest.split_once(';'));
    let hash = hash.map_or("", |(hash, _)| hash);
    let names = names.as_bytes().chunks(900).map(String::from_utf8_lossy);
    let names = names.collect::<Vec<_>>().join("\r\n ");
    let signature = format!(
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=good.test; s=bench;\r\n \
         bh={hash}; b=AAAA;\r\n h={names}from\r\n"
    );
    format!("{signature}{fields}{FRONT}\r\n{}", body.trim_end())
}

/// Ten signatures, each over as many names as are read, of as many fields as there are.
fn signatures() -> String {
    let one = signed(&"b:".repeat(900), "");
    let signature = one.split("From:").next().unwrap_or_default();
    format!("{}{}", signature.repeat(9), signed(&"b:".repeat(900), &"A: b\r\n".repeat(FIELDS)))
}

fn multipart(part: &str) -> String {
    let front = format!("{FRONT}Content-Type: multipart/mixed; boundary=b\r\n");
    format!("{front}{}\r\n--b--", part.repeat(BODY / part.len()))
}

fn nested() -> String {
    let mut message = FRONT.to_owned();
    message.push_str(&multiparts(400_000));
    message
}

/// The heads of multiparts within each other.
fn multiparts(depth: usize) -> String {
    let head = |number| {
        format!("Content-Type: multipart/mixed; boundary=b{number}\r\n\r\n--b{number}\r\n")
    };
    (0..depth).map(head).collect()
}

fn lines(octets: usize) -> String {
    let line = format!("{}\r\n", "x".repeat(76));
    line.repeat(octets / line.len())
}
