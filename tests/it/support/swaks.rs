//! swaks, as an administrator would type it.

use std::process::Command;

use super::daemon::{Daemon, text};

pub struct Transcript {
    pub text: String,
    pub is_success: bool,
}

impl Transcript {
    #[track_caller]
    pub fn accepted(self) -> Self {
        assert!(self.is_success, "{}", self.text);
        self
    }

    #[track_caller]
    pub fn refused(self, reply: &str, word: &str) -> Self {
        assert!(!self.is_success, "{}", self.text);
        let has = |line: &str| line.contains(reply) && line.contains(&format!("[{word} "));
        assert!(self.text.lines().any(has), "no {reply} [{word} ...] in\n{}", self.text);
        self
    }
}

/// Sends a message with this subject; more arguments follow it.
pub fn swaks(daemon: &Daemon, from: &str, to: &str, subject: &str, more: &[&str]) -> Transcript {
    let output = Command::new("swaks")
        .args(["--server", "127.0.0.1", "--port", &daemon.address().port().to_string()])
        .args(["--helo", "mail.good.test", "--from", from, "--to", to])
        .args(["--header", &format!("Subject: {subject}"), "--timeout", "20"])
        .args(more)
        .output()
        .expect("swaks is installed by tests/setup.sh");
    let text = text(&output.stdout) + &text(&output.stderr);
    Transcript { text, is_success: output.status.success() }
}
