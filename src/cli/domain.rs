//! `mailweir domain keys`, `records`, `check`

use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Subcommand;
use serde::Serialize;
use tokio::time::Instant;

use super::{ConfigArgument, output, runtime, start_failure};
use crate::clock::{Clock, SystemClock};
use crate::config::Configuration;
use crate::daemon;
use crate::domains::{
    self, Cutover, DomainKeyError, Finding, Host, ManagedKey, Purpose, Stage, Status, Today,
};
use crate::mail::Domain;
use crate::store::DomainKeyFolder;

/// For all lookups of a command together.
const DEADLINE: Duration = Duration::from_secs(30);

/// Records were shown that are merged with nothing.
pub(super) const UNSAID: &str = "DNS did not say all that stands there now; publish no record \
                                 that has a warning, and ask again with `mailweir domain records`";

/// What the words of a check mean.
const WORDS: &str = "Verified: as it should be; Missing: not in DNS; Inconsistent: DNS has another; \
                     Pending: no answer from DNS, or not published yet; Failed: DNS has another, \
                     or one that nobody can use";

#[derive(Debug, Subcommand)]
pub(super) enum DomainCommand {
    /// Make the keys that sign a domain's mail, if it has none, and show the records to publish
    Keys(KeysArguments),
    /// The DNS records to publish for a domain, as a zone file has them
    Records(DomainArguments),
    /// Look the records up, and tell which are Verified, Missing, Inconsistent, Pending, Failed
    Check(CheckArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    domain: DomainArguments,
    /// Mail may still go elsewhere: tell whether all but the MX is ready
    #[arg(long)]
    before_cutover: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct KeysArguments {
    #[command(flatten)]
    domain: DomainArguments,
    /// Make the next keys; they sign from when DNS has their records, and the present ones until then
    #[arg(long, conflicts_with = "use_next")]
    rotate: bool,
    /// Look now whether DNS has the records of keys that wait, and have those sign; the daemon looks
    /// by itself
    #[arg(long)]
    use_next: bool,
    /// With --use-next: do not look, because DNS is another here than outside
    #[arg(long, requires = "use_next")]
    unseen: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct DomainArguments {
    /// A domain of an organization
    domain: Domain,
    /// Print JSON, of a list a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// What every one of the commands begins with.
struct Opened {
    configuration: Configuration,
    folder: DomainKeyFolder,
}

impl DomainArguments {
    fn open(&self) -> anyhow::Result<Opened> {
        let configuration = self.config.load()?;
        let mut organizations = configuration.organizations.iter();
        if !organizations.any(|config| config.organization.domains.contains(&self.domain)) {
            let domain = &self.domain;
            bail!("{domain} is no organization's domain: name it under domains in one's file");
        }
        let folder = DomainKeyFolder::open(&configuration.store)?;
        Ok(Opened { configuration, folder })
    }
}

pub(super) fn run(command: &DomainCommand) -> anyhow::Result<()> {
    match command {
        DomainCommand::Keys(arguments) => keys(arguments),
        DomainCommand::Records(arguments) => records(arguments),
        DomainCommand::Check(arguments) => check(arguments),
    }
}

#[derive(Debug, Serialize)]
struct KeySummary<'a> {
    selector: &'a str,
    r#type: &'static str,
    stage: Stage,
    hostname: String,
    value: String,
}

impl<'a> KeySummary<'a> {
    fn new(domain: &Domain, key: &'a ManagedKey) -> Self {
        Self {
            selector: &key.selector,
            r#type: key.key.key_type().as_str(),
            stage: key.stage,
            hostname: key.record_name(domain),
            value: key.key.record(),
        }
    }
}

fn keys(arguments: &KeysArguments) -> anyhow::Result<()> {
    let domain = &arguments.domain.domain;
    let opened = arguments.domain.open()?;
    if arguments.rotate {
        domains::rotate_keys(&opened.folder, domain)?;
    } else if arguments.use_next {
        use_next(&opened, domain, arguments.unseen)?;
    } else {
        domains::make_keys(&opened.folder, domain)?;
    }
    let keys = domains::keys_of(&opened.folder, domain)?;
    if arguments.domain.json {
        return output::json_list(keys.iter().map(|key| KeySummary::new(domain, key)));
    }
    print_keys(domain, &keys, &opened.configuration.pipeline.hostname)
}

/// Nobody is to sign with keys that nobody could find.
fn use_next(opened: &Opened, domain: &Domain, unseen: bool) -> anyhow::Result<()> {
    let keys = domains::keys_of(&opened.folder, domain)?;
    let next: Vec<_> = keys.into_iter().filter(|key| key.stage == Stage::Next).collect();
    if next.is_empty() {
        return Err(DomainKeyError::NoNextKeys(domain.clone()).into());
    }
    let mut unpublished = Vec::new();
    if !unseen {
        let findings = look_up(&opened.configuration, domain, &next, Cutover::Done)?;
        let dkim = findings.into_iter().filter(|it| it.record.purpose == Purpose::Dkim);
        unpublished = dkim.filter(|finding| finding.status != Status::Verified).collect();
    }
    let is_published = |key: &&ManagedKey| {
        let name = key.record_name(domain);
        !unpublished.iter().any(|finding| finding.record.hostname == name)
    };
    let published = next.iter().filter(is_published).map(|key| key.selector.clone());
    let published: Vec<_> = published.collect();
    if !published.is_empty() {
        domains::use_next_keys(&opened.folder, domain, &published)?;
    }
    match unpublished.first() {
        Some(finding) => {
            let (name, status) = (&finding.record.hostname, finding.status.as_str());
            bail!("{name} is {status} in DNS: the key does not sign yet")
        }
        None => Ok(()),
    }
}

fn print_keys(domain: &Domain, keys: &[ManagedKey], hostname: &str) -> anyhow::Result<()> {
    for key in keys {
        let stage = match key.stage {
            Stage::Current => "signs",
            Stage::Next => "waits: signs once DNS has this record",
            Stage::Previous => "not used any more: leave its record for a week, then remove it",
        };
        let key_type = key.key.key_type().as_str();
        output::line(&format!("; {} ({key_type}): {stage}", key.selector))?;
    }
    let records = domains::records(domain, hostname, keys, &Today::default());
    for record in records.iter().filter(|record| record.purpose == Purpose::Dkim) {
        output::line(&record.zone_line())?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordsSummary {
    domain: String,
    records: Vec<domains::DnsRecord>,
    mta_sts_policy: String,
}

fn records(arguments: &DomainArguments) -> anyhow::Result<()> {
    let opened = arguments.open()?;
    let (domain, hostname) = (&arguments.domain, &opened.configuration.pipeline.hostname);
    let keys = domains::keys_of(&opened.folder, domain)?;
    let today = today(&opened.configuration, domain)?;
    if arguments.json {
        output::json(&RecordsSummary {
            domain: domain.to_string(),
            records: domains::records(domain, hostname, &keys, &today),
            mta_sts_policy: domains::mta_sts_policy(hostname),
        })?;
    } else {
        output::line(domains::zone_file(domain, hostname, &keys, &today).trim_end())?;
    }
    match today.first_unsaid() {
        Some(problem) => bail!("{UNSAID}: {problem}"),
        None => Ok(()),
    }
}

/// What DNS has for a domain now.
pub(super) fn today(configuration: &Configuration, domain: &Domain) -> anyhow::Result<Today> {
    let resolver = daemon::resolver(configuration).map_err(start_failure)?;
    let hostname = &configuration.pipeline.hostname;
    let looked_up =
        async { Today::look_up(&*resolver, domain, hostname, Instant::now() + DEADLINE).await };
    Ok(runtime()?.block_on(looked_up))
}

fn check(arguments: &CheckArguments) -> anyhow::Result<()> {
    let opened = arguments.domain.open()?;
    let domain = &arguments.domain.domain;
    let keys = domains::keys_of(&opened.folder, domain)?;
    let cutover = if arguments.before_cutover { Cutover::Before } else { Cutover::Done };
    let findings = look_up(&opened.configuration, domain, &keys, cutover)?;
    if arguments.domain.json {
        output::json_list(&findings)?;
    } else {
        findings.iter().try_for_each(print_finding)?;
        if findings.iter().any(|finding| finding.status != Status::Verified) {
            output::line(WORDS)?;
        }
    }
    if keys.is_empty() {
        let unsigned = domains::unsigned(&opened.configuration.store, [domain])?;
        let unsigned = unsigned.first().map(ToString::to_string).unwrap_or_default();
        return Err(anyhow!(unsigned));
    }
    let is_open =
        |finding: &&Finding| finding.record.required && finding.status != Status::Verified;
    let open = findings.iter().filter(is_open).count();
    if open > 0 {
        let count = output::counted(open as u64, "needed record");
        bail!(
            "{domain}: {count} not verified; mailweir domain records {domain} prints what to publish, \
             in the place of what is there"
        );
    }
    let mut moves = findings.iter().filter(|finding| finding.record.purpose == Purpose::Mx);
    let moves = moves.find(|finding| finding.status != Status::Verified);
    if let (false, Some(Finding { record, .. })) = (arguments.domain.json, moves) {
        let ready = "all is ready; what remains is to make this its only MX record";
        output::line(&format!("{domain}: {ready}: {}", record.value))?;
    }
    Ok(())
}

fn look_up(
    configuration: &Configuration,
    domain: &Domain,
    keys: &[ManagedKey],
    cutover: Cutover,
) -> anyhow::Result<Vec<Finding>> {
    let today = today(configuration, domain)?;
    let resolver = daemon::resolver(configuration).map_err(start_failure)?;
    let hostname = &configuration.pipeline.hostname;
    let records = domains::records(domain, hostname, keys, &today);
    let host = Host { name: hostname, now: SystemClock.now(), cutover };
    Ok(runtime()?.block_on(async {
        domains::check(&*resolver, records, keys, host, Instant::now() + DEADLINE).await
    }))
}

fn print_finding(finding: &Finding) -> std::io::Result<()> {
    let record = &finding.record;
    let optional = match record.purpose {
        Purpose::Mx if !record.required => ", the last step",
        _ if record.required => "",
        _ => ", optional",
    };
    let reason = finding.reason.iter().fold(String::new(), |_, reason| format!(": {reason}"));
    output::line(&format!(
        "{:<12}  {} {} ({}{optional}){reason}",
        finding.status.as_str(),
        record.hostname,
        record.r#type,
        record.purpose.as_str(),
    ))
}
