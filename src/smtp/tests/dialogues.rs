//! `fixtures/dialogues/*.smtp`: run on the state machine, cut at every byte, all at once, and over
//! a stream. `fixtures/dialogues/README.md` explains the format.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::connection::{Client, shared};
use super::machine::Machine;
use crate::smtp::settings::{Limits, Protocol};

struct Dialogue {
    name: String,
    protocol: Protocol,
    limits: Limits,
    turns: Vec<Turn>,
}

/// What the client says at once, and all that the server says before the client goes on.
#[derive(Default)]
struct Turn {
    client: Vec<u8>,
    server: String,
}

fn dialogues() -> Vec<Dialogue> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/dialogues");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("readable");
        parse(path.file_stem().expect("has one").to_string_lossy().into(), &text)
    };
    paths.iter().map(read).collect()
}

fn parse(name: String, text: &str) -> Dialogue {
    let mut limits = Limits { banner_delay: std::time::Duration::ZERO, ..Limits::default() };
    let mut protocol = Protocol::Mx;
    let mut turns = vec![Turn::default()];
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (kind, text) = line.split_once(':').unwrap_or_else(|| panic!("{name}: {line}"));
        let text = text.strip_prefix(' ').unwrap_or(text);
        let turn = turns.last_mut().expect("never empty");
        match kind {
            "limit" => set_limit(&mut limits, text),
            "protocol" => protocol = protocol_of(text),
            "S" => turn.server.push_str(&format!("{text}\r\n")),
            "C" if turn.server.is_empty() => turn.client.extend(format!("{text}\r\n").bytes()),
            "C" => turns
                .push(Turn { client: format!("{text}\r\n").into_bytes(), server: String::new() }),
            _ => panic!("{name}: {line}"),
        }
    }
    Dialogue { name, protocol, limits, turns }
}

fn protocol_of(text: &str) -> Protocol {
    match text {
        "submission" => Protocol::Submission,
        "submissions" => Protocol::Submissions,
        _ => panic!("no such protocol: {text}"),
    }
}

fn set_limit(limits: &mut Limits, text: &str) {
    fn number<N: FromStr>(text: &str) -> N {
        text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
    }
    let (name, value) = text.split_once('=').expect("name=value");
    match name {
        "message_bytes" => limits.message_bytes = number(value),
        "recipients" => limits.recipients = number(value),
        "transactions" => limits.transactions = number(value),
        "command_line_bytes" => limits.command_line_bytes = number(value),
        "errors" => limits.errors = number(value),
        "idle_commands" => limits.idle_commands = number(value),
        _ => panic!("no such limit: {name}"),
    }
}

const CLOSED: &str = "(closed)\r\n";

impl Dialogue {
    fn machine(&self) -> Machine {
        Machine::speaking(self.protocol, &self.limits)
    }

    fn expected(&self) -> String {
        self.turns.iter().map(|turn| turn.server.as_str()).collect()
    }

    /// Under TLS, what was pipelined before the handshake is dropped, so cuts matter there.
    fn has_tls(&self) -> bool {
        self.turns.iter().any(|turn| turn.client.starts_with(b"STARTTLS"))
    }
}

fn said(machine: &mut Machine) -> String {
    let said = machine.said();
    if machine.closed { said + CLOSED } else { said }
}

#[test]
fn there_are_enough() {
    assert!(dialogues().len() >= 15);
}

#[test]
fn on_the_state_machine() {
    for dialogue in dialogues() {
        let mut machine = dialogue.machine();
        for turn in &dialogue.turns {
            machine.feed(&turn.client);
            assert_eq!(said(&mut machine), turn.server, "{}", dialogue.name);
        }
        machine.lose();
        machine.handler.assert_balanced();
    }
}

#[test]
fn cut_at_every_byte() {
    for dialogue in dialogues() {
        let mut machine = dialogue.machine();
        for turn in &dialogue.turns {
            for byte in &turn.client {
                machine.feed(&[*byte]);
            }
            assert_eq!(said(&mut machine), turn.server, "{}", dialogue.name);
        }
    }
}

#[test]
fn all_at_once() {
    for dialogue in dialogues().iter().filter(|dialogue| !dialogue.has_tls()) {
        let mut machine = dialogue.machine();
        let client: Vec<u8> = dialogue.turns.iter().flat_map(|turn| turn.client.clone()).collect();
        machine.feed(&client);
        assert_eq!(said(&mut machine), dialogue.expected(), "{}", dialogue.name);
    }
}

#[tokio::test(start_paused = true)]
async fn over_a_stream() {
    for dialogue in dialogues() {
        let shared = shared(dialogue.limits.clone());
        let mut client = Client::connect_speaking(&shared, dialogue.protocol);
        if dialogue.protocol == Protocol::Submissions {
            client = client.start_tls().await;
        }
        for turn in &dialogue.turns {
            client.send(&turn.client).await;
            for line in turn.server.split_inclusive("\r\n") {
                let said = match line {
                    CLOSED => client.rest().await + CLOSED,
                    _ => client.line().await,
                };
                assert_eq!(said, line, "{}", dialogue.name);
            }
            if turn.client == b"STARTTLS\r\n" && turn.server.starts_with("220") {
                client = client.start_tls().await;
            }
        }
        client.gone().await;
        Arc::clone(&shared).handler().assert_balanced();
    }
}
