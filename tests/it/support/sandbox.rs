//! Where the commands of the documentation run: a folder that stands for `/`, in it a checkout with
//! the development configuration and an installed one, and the built binary in the path.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::daemon::{BINARY, text};
use super::pages::root;
use super::wait_for;

/// What stands in for a program, and why the program itself does not run.
pub struct Shim {
    pub name: &'static str,
    pub why: &'static str,
    script: &'static str,
}

pub const SHIMS: &[Shim] = &[
    Shim {
        name: "mailweir",
        why: "the binary is the one under test, and /etc is not ours to write to: the sandbox's \
              configuration is the default",
        script: r#"
case "$*" in
  demo* | *--config* | *--help*) exec "$BINARY" "$@" ;;
  init*)
    # What init writes listens on free ports of loopback here, and asks the sandbox's DNS.
    etc=$ROOT/etc/mailweir
    mkdir -p "$etc"
    cp -n "$ROOT/checkout/fixtures/dns/demo.zone" "$etc/demo.zone"
    export MAILWEIR__DNS__ZONE_FILE=$etc/demo.zone
    "$BINARY" "$@" --config "$etc/mailweir.toml" --data-dir "$ROOT/var/lib/mailweir"
    sed -i 's/"0.0.0.0:[0-9]*"/"127.0.0.1:0"/' "$etc/mailweir.toml"
    printf '[dns]\nzone_file = "demo.zone"\n' >>"$etc/mailweir.toml" ;;
  *) exec "$BINARY" "$@" --config "$ROOT/etc/mailweir/mailweir.toml" ;;
esac"#,
    },
    Shim {
        name: "cargo",
        why: "a release build takes minutes: what the alias runs is run with the binary under test",
        script: r#"
if [ "$*" = "build --release --ignore-rust-version" ]; then
  mkdir -p target/release
  exec cp "$BINARY" target/release/mailweir
fi
alias=$(sed -n "s/^$1 = \"\(run --release .*\)\"$/\1/p" .cargo/config.toml)
[ -n "$alias" ] || { echo "no alias $1 runs the binary" >&2; exit 1; }
shift
case "$alias" in *" --") own= ;; *) own=${alias#* -- } ;; esac
exec "$BINARY" $own "$@""#,
    },
    Shim {
        name: "sudo",
        why: "everything in the sandbox is the tester's own",
        script: r#"exec "$@""#,
    },
    Shim {
        name: "systemctl",
        why: "there is no service manager in a test: the sandbox's daemon is started, reloaded as \
              the unit says, and stopped",
        script: r#"
pid=$ROOT/run/mailweir.pid
listeners=$ROOT/var/lib/mailweir/run/listeners.json
case "$*" in
  "start mailweir" | "enable --now mailweir")
    rm -f "$listeners"
    setsid mailweir serve --config "$ROOT/etc/mailweir/mailweir.toml" \
      </dev/null >>"$ROOT/daemon.log" 2>&1 &
    echo $! >"$pid"
    for _ in $(seq 1000); do
      [ -e "$listeners" ] && exit 0
      kill -0 "$(cat "$pid")" || { cat "$ROOT/daemon.log" >&2; exit 1; }
      sleep 0.01
    done
    exit 1 ;;
  "stop mailweir")
    kill -TERM "$(cat "$pid")"
    for _ in $(seq 1000); do
      kill -0 "$(cat "$pid")" 2>/dev/null || { rm "$pid"; exit 0; }
      sleep 0.01
    done
    exit 1 ;;
  "restart mailweir") systemctl stop mailweir && systemctl start mailweir ;;
  "reload mailweir")
    command=$(sed -n 's|^ExecReload=/usr/local/bin/||p' "$ROOT/checkout/systemd/mailweir.service")
    eval "${command// \/etc/ $ROOT/etc}" ;;
  *) echo "the shim does not know: systemctl $*" >&2; exit 1 ;;
esac"#,
    },
    Shim {
        name: "install",
        why: "there is no group mailweir on a tester's machine",
        script: r#"
arguments=()
while [ $# -gt 0 ]; do
  case "$1" in -g | -o) shift ;; *) arguments+=("$1") ;; esac
  shift
done
exec /usr/bin/install "${arguments[@]}""#,
    },
    Shim {
        name: "systemd-sysusers",
        why: "makes a user on the machine: its file is looked for",
        script: r#"grep -q '^u mailweir ' "$ROOT/usr/lib/sysusers.d/mailweir.conf""#,
    },
    Shim {
        name: "systemd-tmpfiles",
        why: "acts on the machine: the folders that its file names are made in the sandbox",
        script: r#"
while read -r type path mode _; do
  [ "$type" != d ] || /usr/bin/install -d -m "$mode" "$ROOT$path"
done <"$ROOT/usr/lib/tmpfiles.d/mailweir.conf""#,
    },
    Shim {
        name: "chown",
        why: "there is no user mailweir on a tester's machine: only the files are looked for",
        script: r#"for file in "$@"; do case "$file" in -*|mailweir:*) ;; *) ls -d "$file" >/dev/null ;; esac; done"#,
    },
];

/// What a command printed.
pub struct Printed {
    pub text: String,
    pub is_success: bool,
}

pub struct Sandbox {
    dir: tempfile::TempDir,
    /// What runs until it is stopped.
    running: Vec<Child>,
}

/// The organization of the tests' configuration: the example, and a destination that is not
/// reached.
const ROUTE: &str =
    "[[queue_route]]\ndomain = \"elsewhere.test\"\nhost = \"127.0.0.1\"\nport = 1\n";

impl Sandbox {
    pub fn new() -> Self {
        let sandbox = Self { dir: tempfile::tempdir().expect("a folder"), running: Vec::new() };
        for folder in ["bin", "run", "tmp", "backup", "checkout/config", "etc/mailweir", "var/lib"]
        {
            fs::create_dir_all(sandbox.path(folder)).expect("makes");
        }
        for shim in SHIMS {
            let path = sandbox.path(&format!("bin/{}", shim.name));
            fs::write(&path, format!("#!/usr/bin/env bash\n{}\n", shim.script)).expect("writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        sandbox.check_out();
        sandbox.configure();
        sandbox
    }

    /// The repository with the development configuration on ports that the system chooses.
    fn check_out(&self) {
        for name in [
            ".cargo",
            "README.md",
            "bench",
            "dist.sh",
            "docs",
            "fixtures",
            "fuzz",
            "systemd",
            "tests",
        ] {
            symlink(root().join(name), self.path(&format!("checkout/{name}"))).expect("links");
        }
        let message = root().join("fixtures/messages/demo-good.eml");
        fs::copy(message, self.path("checkout/message.eml")).expect("copies");
        for name in ["mailweir.toml", "dev.toml", "example-org.toml"] {
            let file = fs::read_to_string(root().join("config").join(name)).expect("reads");
            let data_dir = self.path("var/lib/mailweir").display().to_string();
            let file =
                on_free_ports(&file).replace("\"/var/lib/mailweir\"", &format!("{data_dir:?}"));
            fs::write(self.path(&format!("checkout/config/{name}")), file).expect("writes");
        }
    }

    /// What an administrator has in /etc/mailweir: like the development configuration, but for the
    /// paths, a domain whose server is not there.
    fn configure(&self) {
        let file = self.read("checkout/config/dev.toml");
        let file = file
            .replace("../.mailweir-dev", &self.path("var/lib/mailweir").display().to_string())
            .replace("../fixtures/dns/", "");
        fs::write(self.path("etc/mailweir/mailweir.toml"), format!("{file}{ROUTE}"))
            .expect("writes");
        fs::write(
            self.path("etc/mailweir/example-org.toml"),
            self.read("checkout/config/example-org.toml"),
        )
        .expect("writes");
        let zone = fs::read(root().join("fixtures/dns/demo.zone")).expect("reads");
        fs::write(self.path("etc/mailweir/demo.zone"), zone).expect("writes");
    }

    /// Leaves a machine on which nothing is installed, with the folders that every one has.
    pub fn remove_installed(&self) {
        fs::remove_dir_all(self.path("etc/mailweir")).expect("removes");
        for folder in ["etc/systemd/system", "usr/local/bin"] {
            fs::create_dir_all(self.path(folder)).expect("makes");
        }
    }

    /// Puts records of a domain into the zone file in the place of those that it has under the same
    /// names and types.
    pub fn publish(&self, domain: &str, records: &str) {
        let key = |line: &str| -> Option<(String, String)> {
            let mut words = line.split_whitespace();
            let name = words.next()?.trim_end_matches('.').to_lowercase();
            let kind = words.find(|word| !matches!(*word, "IN") && word.parse::<u32>().is_err())?;
            Some((name, kind.to_owned()))
        };
        let new: Vec<_> = records.lines().filter(|line| !line.starts_with(';')).collect();
        let replaced: Vec<_> = new.iter().filter_map(|line| key(line)).collect();
        assert!(
            replaced.iter().any(|(name, _)| name == domain),
            "no record of {domain} in {records}"
        );
        let zone = self.read("etc/mailweir/demo.zone");
        let kept = zone.lines().filter(|line| key(line).is_none_or(|key| !replaced.contains(&key)));
        let zone: Vec<_> = kept.chain(new.iter().copied()).collect();
        fs::write(self.path("etc/mailweir/demo.zone"), zone.join("\n") + "\n").expect("writes");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Runs a command as it stands on a page, in the sandbox.
    pub fn run(&self, command: &str, input: &str) -> Printed {
        let mut shell = self.shell(command);
        let file = self.path("input");
        fs::write(&file, input).expect("writes");
        shell.stdin(fs::File::open(file).expect("opens"));
        let output = shell.output().expect("bash is there");
        let text = text(&output.stdout) + &text(&output.stderr);
        Printed { text, is_success: output.status.success() }
    }

    #[track_caller]
    pub fn succeeds(&self, command: &str) -> String {
        let printed = self.run(command, "");
        assert!(printed.is_success, "{command}\n{}", printed.text);
        printed.text
    }

    /// Begins a command that runs until it is stopped, and waits until `is_there`.
    pub fn begin(&mut self, command: &str, is_there: impl Fn(&Self, &str) -> bool) -> String {
        let printed = self.path(&format!("begun-{}", self.running.len()));
        let mut shell = self.shell(&format!("exec {command}"));
        let file = fs::File::create(&printed).expect("creates");
        shell.stdin(Stdio::null()).stdout(file.try_clone().expect("clones")).stderr(file);
        self.running.push(shell.spawn().expect("bash is there"));
        wait_for(command, || {
            let text = fs::read_to_string(&printed).expect("reads");
            let child = self.running.last_mut().expect("just begun");
            let end = child.try_wait().expect("waits");
            assert!(end.is_none(), "{command} has ended: {text}");
            is_there(self, &text).then_some(text)
        })
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        shell
            .args(["-euo", "pipefail", "-c", &self.placed(command)])
            .current_dir(self.path("checkout"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("ROOT", self.dir.path())
            .env("BINARY", BINARY)
            .env("TMPDIR", self.path("tmp"))
            .env("RUST_BACKTRACE", "0");
        shell
    }

    /// A command with its absolute paths below the sandbox, and the listeners' ports in place of
    /// those of the configuration.
    fn placed(&self, command: &str) -> String {
        let mut placed = String::new();
        for (at, c) in command.char_indices() {
            // A certificate's subject begins with a slash too.
            let begins = (placed.is_empty() || placed.ends_with([' ', '=', '"', '\'', '(']))
                && !command[at..].starts_with("/CN=");
            if c == '/' && begins {
                placed += &self.dir.path().display().to_string();
            }
            placed.push(c);
        }
        for (name, listener) in [
            ("127.0.0.1:2525", "mx"),
            ("127.0.0.1:2465", "submissions"),
            ("mx.example.test:465", "submissions"),
            ("mx.example.test:25", "mx"),
            ("mx.example.com:25", "mx"),
        ] {
            if placed.contains(name) {
                placed = placed.replace(name, &self.listener(listener).to_string());
            }
        }
        placed
    }

    /// Where the daemon that runs listens: the installed one, or that of the checkout.
    fn listener(&self, name: &str) -> SocketAddr {
        let text =
            ["var/lib/mailweir/run/listeners.json", "checkout/.mailweir-dev/run/listeners.json"]
                .iter()
                .find_map(|file| fs::read_to_string(self.path(file)).ok())
                .expect("a daemon runs");
        let addresses: BTreeMap<String, SocketAddr> = serde_json::from_str(&text).expect("JSON");
        addresses[name]
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for child in &mut self.running {
            drop(Command::new("kill").args(["-TERM", &child.id().to_string()]).status());
            drop(child.wait());
        }
        if self.path("run/mailweir.pid").exists() {
            let stopped = self.run("systemctl stop mailweir", "");
            assert!(stopped.is_success || std::thread::panicking(), "{}", stopped.text);
        }
    }
}

/// A configuration file whose listeners take ports that are free.
fn on_free_ports(file: &str) -> String {
    let mut changed = String::new();
    for line in file.lines() {
        match line.strip_prefix("bind = \"").and_then(|rest| rest.split_once(':')) {
            Some(_) => changed += "bind = \"127.0.0.1:0\"\n",
            None => changed += &format!("{line}\n"),
        }
    }
    changed
}
