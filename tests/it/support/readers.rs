//! What other programs read in what we have read: readers in other languages, and generated input
//! for them and for us.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A reader in another language, a process of its own: JSON text in, a list of names out, a line
/// each.
pub struct Reader {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reader {
    /// A script below `tests/` for the Python in which the tests' packages are.
    pub fn python(script: &str) -> Self {
        Self::start(Command::new("target/test-venv/bin/python").arg(script))
    }

    /// A script below `tests/` for Node with the tests' packages.
    pub fn node(script: &str) -> Self {
        let mut command = Command::new("node");
        Self::start(command.arg(script).env("NODE_PATH", "target/test-node/node_modules"))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command
            .current_dir(ROOT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/setup.sh installs it");
        let questions = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, questions, answers }
    }

    /// What it finds in a text.
    pub fn names(&mut self, text: &str) -> Vec<String> {
        let question = serde_json::json!(text).to_string() + "\n";
        self.questions.write_all(question.as_bytes()).expect("the reader runs");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the reader runs");
        serde_json::from_str(&answer).expect("the reader answers")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended; either way it is waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How much is generated, and from which seed.
///
/// Without the variables it is always the same, so that a change fails only by what it has changed.
/// Who sets `MAILWEIR_<kind>` to a number asks for the long form: so many, and others at each run.
/// `MAILWEIR_SEED` makes a run again.
pub struct Generated {
    /// How many inputs are tried.
    pub count: usize,
    /// Where they come from.
    pub runner: TestRunner,
}

impl Generated {
    /// `few` inputs, or as many as the variable for this kind says.
    pub fn new(kind: &str, few: usize) -> Self {
        let long = std::env::var(format!("MAILWEIR_{kind}")).ok();
        let mut seed = [0; 32];
        if let Ok(text) = std::env::var("MAILWEIR_SEED") {
            let octets = data_encoding::HEXLOWER.decode(text.as_bytes()).expect("hex");
            seed = octets.try_into().expect("32 octets");
        } else if long.is_some() {
            aws_lc_rs::rand::fill(&mut seed).expect("the system has random octets");
        }
        eprintln!("MAILWEIR_SEED={}", data_encoding::HEXLOWER.encode(&seed));
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        Self {
            count: long.map_or(few, |count| count.parse().expect("a number")),
            runner: TestRunner::new_with_rng(Config::default(), rng),
        }
    }
}
