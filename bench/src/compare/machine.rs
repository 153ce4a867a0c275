//! With what was measured: the machine and all versions.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What and which, for a table.
pub(super) fn facts(
    mailweir: &Path,
    node_modules: &Path,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let cores = std::thread::available_parallelism()?;
    let memory = line_of("/proc/meminfo", "MemTotal:").replace("MemTotal:", "");
    let memory: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let scratch = std::env::temp_dir();
    let file_system = said("findmnt", &["-no", "FSTYPE", "-T", &scratch.to_string_lossy()]);
    let system = line_of("/etc/os-release", "PRETTY_NAME=").replace("PRETTY_NAME=", "");
    Ok(vec![
        ("command", "`bench/run.sh`".into()),
        ("date", said("date", &["-u", "+%F"])),
        ("CPU", after_colon(&line_of("/proc/cpuinfo", "model name"))),
        ("cores", cores.to_string()),
        ("memory", format!("{:.0} GiB", memory as f64 / 1_048_576.0)),
        ("file system", last_word(&file_system)),
        ("system", system.trim().trim_matches('"').to_owned()),
        ("kernel", said("uname", &["-sr"])),
        ("Mailweir", last_word(&said(&mailweir.to_string_lossy(), &["--version"]))),
        ("commit", said("git", &["describe", "--always", "--dirty"])),
        ("compiler", said("rustc", &["--version"])),
        ("Postfix", said("postconf", &["-d", "-h", "mail_version"])),
        ("rspamd", last_word(&said("rspamd", &["--version"]))),
        ("Haraka", haraka(node_modules)),
        ("Node.js", said("node", &["--version"])),
        ("Dovecot", first_word(&said("dovecot", &["--version"]))),
        ("NSD", last_word(&said("nsd", &["-v"]))),
        ("strace", last_word(&said("strace", &["-V"]))),
    ])
}

/// Haraka and what it uses here beside itself.
fn haraka(node_modules: &Path) -> String {
    let version = |package: &str| {
        let text = fs::read_to_string(node_modules.join(package).join("package.json"));
        let facts: serde_json::Value =
            serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
        facts["version"].as_str().unwrap_or("unknown").to_owned()
    };
    format!(
        "{}, with haraka-plugin-spf {} and haraka-plugin-dkim {}",
        version("Haraka"),
        version("haraka-plugin-spf"),
        version("haraka-plugin-dkim")
    )
}

/// The first line that a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return "unknown".into();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn first_word(line: &str) -> String {
    line.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn last_word(line: &str) -> String {
    line.split_whitespace().last().unwrap_or("unknown").to_owned()
}

/// The first line of a file that begins so.
fn line_of(file: &str, beginning: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find(|line| line.starts_with(beginning)).unwrap_or("unknown").to_owned()
}

fn after_colon(line: &str) -> String {
    line.split_once(": ").map_or(line, |(_, value)| value).to_owned()
}
