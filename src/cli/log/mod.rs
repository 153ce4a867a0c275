//! The daemon's log on standard error.

mod writer;

use std::fmt::{self, Write};
use std::io;

use anyhow::Context;
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::harmless::harmless;
use crate::config::{LogFormat, LogSettings};
use crate::pipeline;

pub(super) use writer::Log;

/// Starts the log; whoever does keeps it to its end. A second start, as tests may do, leaves the first
/// log as it is.
pub(super) fn start(settings: &LogSettings) -> anyhow::Result<Log> {
    let log = Log::start(io::stderr()).context("starting the log")?;
    let filter: Targets = settings.level.parse().context("the log's level")?;
    let lines = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(log.entrance(is_of_mail));
    drop(match settings.format {
        LogFormat::Text => {
            let fields = format::debug_fn(write_field).delimited(" ");
            lines.with_ansi(false).fmt_fields(fields).finish().with(filter).try_init()
        }
        LogFormat::Json => lines.json().finish().with(filter).try_init(),
    });
    Ok(log)
}

/// Whether it is one of the lines that every message has.
fn is_of_mail(metadata: &Metadata<'_>) -> bool {
    metadata.target() == pipeline::MAIL_LOG && *metadata.level() == Level::INFO
}

/// Writes one field of a line. What a peer said in it can neither end the line nor hide in it; a
/// message of ours may have several lines.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let is_message = field.name() == "message";
    if !is_message {
        write!(out, "{}=", field.name())?;
    }
    write!(Shown { out, is_message }, "{value:?}")
}

struct Shown<'a, W> {
    out: &'a mut W,
    is_message: bool,
}

impl<W: Write> Write for Shown<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.out.write_str(text);
        }
        let shown = harmless(text);
        if self.is_message {
            self.out.write_str(&shown)
        } else {
            self.out.write_str(&shown.replace('\n', "\\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_stays_in_its_line_and_shows() {
        for (text, as_field, as_message) in [
            ("plain", "plain", "plain"),
            ("Übertragen", "Übertragen", "Übertragen"),
            (
                "a\n2026-11-30 INFO forged",
                "a\\n2026-11-30 INFO forged",
                "a\n2026-11-30 INFO forged",
            ),
            ("\u{1b}[31mred\r", "\u{fffd}[31mred\u{fffd}", "\u{fffd}[31mred\u{fffd}"),
            ("mo\u{202e}c.elgoog", "mo\\u202ec.elgoog", "mo\\u202ec.elgoog"),
        ] {
            for (is_message, expected) in [(false, as_field), (true, as_message)] {
                let mut out = String::new();
                write!(Shown { out: &mut out, is_message }, "{text}").expect("writes");
                assert_eq!(out, expected);
            }
        }
    }
}
