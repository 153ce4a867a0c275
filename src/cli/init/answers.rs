//! What must be known before anything can be written: from arguments, or asked for.

use std::io::{self, BufRead, IsTerminal, Write};
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::CommandFactory;
use clap::error::ErrorKind;

use super::InitArguments;
use crate::cli::Arguments;
use crate::cli::harmless::harmless;
use crate::config::check_name;
use crate::daemon::{MEANS_NOTHING_AS_HOST, means_something_outside};
use crate::mail::{Address, Domain};

/// Who and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answers {
    /// This host's name.
    pub(super) hostname: Domain,
    /// The organization's first domain.
    pub(super) domain: Domain,
    /// The administrator's address, at that domain.
    pub(super) admin: Address,
}

impl Answers {
    /// The arguments, and answers on the terminal to what they leave open. Without a terminal that
    /// is wrong usage, which ends the program.
    pub(super) fn complete(arguments: &InitArguments) -> anyhow::Result<Self> {
        if io::stdin().is_terminal() {
            return Self::ask(arguments, &mut io::stdin().lock(), &mut io::stderr().lock());
        }
        let open = [
            ("--hostname", arguments.hostname.is_none()),
            ("--domain", arguments.domain.is_none()),
            ("--admin", arguments.admin.is_none()),
        ];
        let open: Vec<_> =
            open.iter().filter(|(_, is_open)| *is_open).map(|(name, _)| *name).collect();
        if !open.is_empty() {
            let message = format!(
                "nobody can be asked, because standard input is no terminal; give {}",
                open.join(", ")
            );
            Arguments::command().error(ErrorKind::MissingRequiredArgument, message).exit();
        }
        // Nothing is open, so nothing is asked.
        Self::ask(arguments, &mut io::empty(), &mut io::sink())
    }

    fn ask(
        arguments: &InitArguments,
        input: &mut impl BufRead,
        output: &mut impl Write,
    ) -> anyhow::Result<Self> {
        let mut terminal = Terminal { input, output };
        let hostname = match &arguments.hostname {
            Some(hostname) => hostname.clone(),
            None => terminal.ask("This host's name in DNS", own_name(), host_name)?,
        };
        let domain = match &arguments.domain {
            Some(domain) => domain.clone(),
            None => terminal.ask("The domain of the mail", above(&hostname), mail_domain)?,
        };
        let admin = match &arguments.admin {
            Some(text) => admin_at(text, &domain)?,
            None => {
                let suggested = Some(format!("admin@{domain}"));
                terminal
                    .ask("The administrator's address", suggested, |text| admin_at(text, &domain))?
            }
        };
        Ok(Self { hostname, domain, admin })
    }
}

/// Whether whoever sits at the terminal agrees to what is about to be made. Without a terminal, who
/// has given all the answers has agreed.
pub(super) fn agreed(plan: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    agrees(plan, &mut io::stdin().lock(), &mut io::stderr().lock())
}

fn agrees(plan: &str, input: &mut impl BufRead, output: &mut impl Write) -> anyhow::Result<bool> {
    for line in plan.lines() {
        writeln!(output, "{}", harmless(line))?;
    }
    Terminal { input, output }.ask("Go on", Some("yes".to_owned()), yes_or_no)
}

fn yes_or_no(text: &str) -> Result<bool, &'static str> {
    match text.to_lowercase().as_str() {
        "yes" | "y" => Ok(true),
        "no" | "n" => Ok(false),
        _ => Err("write yes or no"),
    }
}

/// Whoever answers questions.
struct Terminal<'a, R, W> {
    input: &'a mut R,
    output: &'a mut W,
}

impl<R: BufRead, W: Write> Terminal<'_, R, W> {
    /// Asks until the answer can be read; nothing but Enter is the suggested one.
    fn ask<T, E: std::fmt::Display>(
        &mut self,
        question: &str,
        suggested: Option<String>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> anyhow::Result<T> {
        let shown = suggested.iter().fold(String::new(), |_, it| format!(" [{it}]"));
        loop {
            write!(self.output, "{}", harmless(&format!("{question}{shown}: ")))?;
            self.output.flush()?;
            let mut line = String::new();
            if self.input.read_line(&mut line).context("standard input")? == 0 {
                bail!("there is no answer to: {question}");
            }
            let answer = match (line.trim(), &suggested) {
                ("", Some(suggested)) => suggested,
                (answer, _) => answer,
            };
            match read(answer) {
                Ok(answer) => return Ok(answer),
                Err(problem) => writeln!(self.output, "{}", harmless(&problem.to_string()))?,
            }
        }
    }
}

/// This host's name, as other servers can look it up.
pub(super) fn host_name(text: &str) -> Result<Domain, String> {
    outside(text, MEANS_NOTHING_AS_HOST)
}

/// A domain that others can write to.
pub(super) fn mail_domain(text: &str) -> Result<Domain, String> {
    outside(
        text,
        "means nothing to other servers: write what stands behind the @ of addresses, such as \
         example.com",
    )
}

fn outside(text: &str, problem: &str) -> Result<Domain, String> {
    let domain = Domain::from_str(text).map_err(|error| error.to_string())?;
    match means_something_outside(domain.as_str()) {
        true => Ok(domain),
        false => Err(format!("\"{text}\" {problem}")),
    }
}

/// An address at the domain, or what stands before its @.
fn admin_at(text: &str, domain: &Domain) -> anyhow::Result<Address> {
    let whole = if text.contains('@') { text.to_owned() } else { format!("{text}@{domain}") };
    let address = Address::parse(&whole)?;
    if address.domain() != domain {
        bail!("the administrator's mailbox is here, so {address} must be an address at {domain}");
    }
    if let Err(problem) = check_name(address.local_part()) {
        bail!("the administrator's user is called {} then, and {problem}", address.local_part());
    }
    Ok(address)
}

/// What the system calls this host, if that can be its name in DNS.
fn own_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    host_name(&name).is_ok().then_some(name)
}

/// `example.com` for `mx.example.com`; nothing for a name that has nothing above it but a registry's
/// domain.
fn above(hostname: &Domain) -> Option<String> {
    let (_, above) = hostname.as_str().split_once('.')?;
    above.contains('.').then(|| above.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Init {
        #[command(flatten)]
        arguments: InitArguments,
    }

    fn asked(arguments: &[&str], input: &str) -> (Result<Answers, String>, String) {
        let arguments = Init::parse_from([&["init"], arguments].concat()).arguments;
        let mut output = Vec::new();
        let answers = Answers::ask(&arguments, &mut input.as_bytes(), &mut output);
        let told = String::from_utf8(output).expect("text");
        (answers.map_err(|error| format!("{error:#}")), told)
    }

    #[test]
    fn whoever_sits_there_agrees_or_not() {
        let plan = "This writes\n  /etc/a\u{7}.toml\n";
        for (input, expected) in [
            ("\n", Some(true)),
            ("Yes\n", Some(true)),
            ("maybe\ny\n", Some(true)),
            ("no\n", Some(false)),
            ("N\n", Some(false)),
            ("", None),
        ] {
            let mut output = Vec::new();
            let answer = agrees(plan, &mut input.as_bytes(), &mut output).ok();
            assert_eq!(answer, expected, "{input:?}");
            let told = String::from_utf8(output).expect("text");
            assert!(told.starts_with("This writes\n  /etc/a"), "{told}");
            assert!(told.contains("\nGo on [yes]: ") && !told.contains('\u{7}'), "{told}");
            assert_eq!(told.contains("write yes or no"), input.starts_with("maybe"), "{told}");
        }
    }

    #[test]
    fn what_arguments_leave_open_is_asked_for() {
        let host = ["--hostname", "mx.example.test"];
        let all = [&host[..], &["--domain", "example.test", "--admin", "ada"]].concat();
        let (answers, told) = asked(&all, "");
        assert_eq!(told, "", "nothing is open");
        let answers = answers.expect("complete");
        assert_eq!(answers.admin.to_string(), "ada@example.test");

        let (answers, told) = asked(&host, "\n\n");
        let answers = answers.expect("Enter takes what is suggested");
        assert_eq!(answers.domain.as_str(), "example.test");
        assert_eq!(answers.admin.to_string(), "admin@example.test");
        assert!(told.contains("[example.test]") && told.contains("[admin@example.test]"), "{told}");

        let (answers, told) = asked(&host, "no domain\nother.test\nada@elsewhere.test\nada\n");
        let answers = answers.expect("the second of each");
        assert_eq!(answers.admin.to_string(), "ada@other.test");
        assert!(told.contains("must be an address at other.test"), "{told}");

        // Each is judged where it is given, and asked for again.
        let input = "localhost\nmail\n192.0.2.1\nmx.example.test\nlan\nexample.test\na/b\nada\n";
        let (answers, told) = asked(&[], input);
        let answers = answers.expect("the last of each");
        assert_eq!(answers.hostname.as_str(), "mx.example.test");
        assert_eq!(answers.domain.as_str(), "example.test");
        assert_eq!(answers.admin.to_string(), "ada@example.test");
        for told_once in [
            "\"localhost\" means nothing to other servers: write the name that DNS has",
            "\"mail\" means nothing",
            "\"192.0.2.1\" means nothing",
            "\"lan\" means nothing to other servers: write what stands behind the @",
            "the administrator's user is called a/b then, and '/' cannot stand in a name",
        ] {
            assert_eq!(told.matches(told_once).count(), 1, "{told_once}: {told}");
        }
        let first = told.find("\"localhost\" means").expect("is told");
        let next = told.find("The domain of the mail").expect("is asked for");
        assert!(first < next, "{told}");

        let (answers, _) = asked(&host, "");
        assert_eq!(
            answers.expect_err("nobody answers"),
            "there is no answer to: The domain of the mail"
        );
        let (answers, _) = asked(&[&all[..4], &["--admin", "a@b.test"]].concat(), "");
        assert!(
            answers.expect_err("elsewhere").contains("a@b.test must be an address at example.test")
        );
    }
}
