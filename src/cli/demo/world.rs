//! The two daemons of the demo: the one it shows, and one that plays everybody elsewhere, among
//! them the SMTP gateway. Mail between them goes over loopback, as their routes say.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::time::{interval, timeout};

use crate::cli::start_failure;
use crate::config;
use crate::daemon::Daemon;
use crate::directory::Organization;
use crate::domains::{self, Purpose, Today};
use crate::mail::Domain;
use crate::store::reader::Reader;
use crate::store::{DomainKeyFolder, MailboxOwner, Settings};

/// The name of the daemon that is shown.
pub(super) const HOSTNAME: &str = "mx.example.test";
const ZONE: &str = include_str!("../../../fixtures/dns/demo.zone");
const ORGANIZATION: &str = include_str!("../../../config/example-org.toml");
/// The example organization's last section; the demo has its own gateway in its place.
const GATEWAYS: &str = "[[smtp_gateway]]";

const ELSEWHERE: &str = "\
data_dir = \"data\"
hostname = \"mx.elsewhere.test\"
[[listener]]
name = \"mx\"
protocol = \"mx\"
bind = \"127.0.0.1:0\"
[[organization]]
file = \"organization.toml\"
[dns]
zone_file = \"../demo.zone\"
[limits]
banner_delay_ms = 0
";
const ELSEWHERE_ORGANIZATION: &str = "\
alias = \"elsewhere\"
domains = [\"elsewhere.test\", \"partner.test\"]
[[user]]
name = \"erin\"
[[user]]
name = \"buyer\"
email = \"buyer@partner.test\"
";

/// How long what was sent may take to have its outcome.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the queue is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One daemon's files.
pub(super) struct Place {
    pub(super) config: PathBuf,
    pub(super) store: Settings,
    pub(super) organization: Arc<Organization>,
}

impl Place {
    /// Whose a user's mailbox is; `None` if there is no user of that name.
    pub(super) fn owner(&self, name: &str) -> Option<MailboxOwner> {
        let user = self.organization.users.iter().find(|user| *user.name == *name)?;
        let organization = (&self.organization.id).into();
        Some(MailboxOwner { organization, entity: user.id.clone() })
    }
}

/// A daemon that runs.
pub(super) struct Running {
    pub(super) place: Place,
    daemon: Daemon,
}

/// Both daemons.
pub(super) struct World {
    pub(super) here: Running,
    pub(super) elsewhere: Running,
}

impl World {
    /// Writes all files below a folder, and starts both daemons on ports that the system chooses.
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let far = dir.join("elsewhere");
        std::fs::create_dir_all(&far).with_context(|| far.display().to_string())?;
        write(dir, "demo.zone", &zone(dir)?)?;
        write(&far, "organization.toml", ELSEWHERE_ORGANIZATION)?;
        write(&far, "mailweir.toml", ELSEWHERE)?;
        let elsewhere = Running::start(&far).await?;
        let port = elsewhere.address("mx")?.port();
        write(dir, "example-org.toml", &organization(port)?)?;
        write(dir, "mailweir.toml", &configuration(port))?;
        Ok(Self { here: Running::start(dir).await?, elsewhere })
    }

    /// Stops both; their files stay.
    pub(super) async fn stop(self) -> (Place, Place) {
        self.here.daemon.stop().await;
        self.elsewhere.daemon.stop().await;
        (self.here.place, self.elsewhere.place)
    }
}

impl Running {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let config = dir.join("mailweir.toml");
        let configuration = config::load(&config, [])?;
        let organization = configuration.organizations.first();
        let organization = organization.map(|config| Arc::clone(&config.organization));
        let organization = organization.ok_or_else(|| anyhow!("the demo has no organization"))?;
        let store = configuration.store.clone();
        let daemon = Daemon::start(configuration).await.map_err(start_failure)?;
        Ok(Self { place: Place { config, store, organization }, daemon })
    }

    /// Where a listener listens.
    pub(super) fn address(&self, listener: &str) -> anyhow::Result<SocketAddr> {
        let address = self.daemon.addresses().get(listener).copied();
        address.ok_or_else(|| anyhow!("the demo's listener {listener} has no address"))
    }

    /// Waits until everything that left has its outcome.
    ///
    /// # Errors
    /// Something still waits after 30 seconds; a store that cannot be read.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        let settled = async {
            let mut looks = interval(LOOK_EVERY);
            loop {
                looks.tick().await;
                if Reader::open(&self.place.store)?.queue()?.is_empty() {
                    return anyhow::Ok(());
                }
            }
        };
        let waited = timeout(PATIENCE, settled).await;
        waited.map_err(|_| anyhow!("what was sent still waits after {PATIENCE:?}"))?
    }
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

/// The fixture, with the host elsewhere, and what `mailweir domain records` would have published
/// for the mail from here in place of the fixture's refusal to vouch for any.
fn zone(dir: &Path) -> anyhow::Result<String> {
    let folder = DomainKeyFolder::open(&Settings::new(dir.join("data")))?;
    let domain = Domain::parse("example.test")?;
    domains::make_keys(&folder, &domain)?;
    let keys = domains::keys_of(&folder, &domain)?;
    let selectors: Vec<_> = keys.into_iter().map(|key| key.selector).collect();
    // Their records are in the zone file before anything looks.
    domains::use_next_keys(&folder, &domain, &selectors)?;
    let keys = domains::keys_of(&folder, &domain)?;
    let mut zone = String::from("mx.elsewhere.test. 300 IN A 127.0.0.1\n");
    for line in ZONE.lines().filter(|line| !line.starts_with("example.test. IN TXT ")) {
        writeln!(zone, "{line}")?;
    }
    for record in domains::records(&domain, HOSTNAME, &keys, &Today::default()) {
        if matches!(record.purpose, Purpose::Spf | Purpose::Dkim | Purpose::Dmarc) {
            writeln!(zone, "{}", record.zone_line())?;
        }
    }
    Ok(zone)
}

/// The example organization, whose gateway is the daemon elsewhere.
fn organization(port: u16) -> anyhow::Result<String> {
    let (rest, _) = ORGANIZATION.split_once(GATEWAYS).context("the example has no gateway")?;
    Ok(format!(
        "{rest}{GATEWAYS}\nname = \"filter\"\naddress = \"mx.elsewhere.test\"\nport = {port}\n\
         ca_file = \"elsewhere/data/tls/certificate.pem\"\n"
    ))
}

fn configuration(port: u16) -> String {
    format!(
        "data_dir = \"data\"\nhostname = \"{HOSTNAME}\"\n\
         [[listener]]\nname = \"mx\"\nprotocol = \"mx\"\nbind = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"submissions\"\nprotocol = \"submissions\"\n\
         bind = \"127.0.0.1:0\"\n\
         [[organization]]\nfile = \"example-org.toml\"\n\
         [dns]\nzone_file = \"demo.zone\"\n\
         [[queue_route]]\ndomain = \"elsewhere.test\"\nhost = \"mx.elsewhere.test\"\n\
         port = {port}\n\
         [limits]\nbanner_delay_ms = 0\n"
    )
}
