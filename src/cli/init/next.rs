//! What is left to do when the files are there.

use std::path::Path;

use super::answers::Answers;
use crate::cli::DEFAULT_CONFIG;
use crate::cli::harmless::for_shell;

/// The steps from here to a domain whose mail is here, in order.
pub(super) fn steps(answers: &Answers, main: &Path, organization: &Path) -> Vec<String> {
    let Answers { hostname, domain, admin } = answers;
    let config = match main == Path::new(DEFAULT_CONFIG) {
        true => String::new(),
        false => format!(" --config {}", for_shell(main)),
    };
    let start = match main == Path::new(DEFAULT_CONFIG) {
        true => "systemctl enable --now mailweir".to_owned(),
        false => format!(
            "mailweir serve{config}; in mailweir.service, ExecStart needs the same --config"
        ),
    };
    let main = main.display();
    let organization = organization.display();
    vec![
        format!("Get a certificate for {hostname}, and name it and its key under [tls] in {main}."),
        format!("Add users to {organization}."),
        format!(
            "See that all is in order, now and after every change: mailweir check-config{config}"
        ),
        format!("Give each user a password: mailweir user set-password NAME{config}"),
        format!(
            "Publish the records above, all but the MX; {hostname} needs an address, and that address the name {hostname}. Go on when DNS has all of it: mailweir domain check {domain} --before-cutover{config}"
        ),
        format!("Start the daemon: {start}"),
        format!(
            "Make {hostname} the only MX record of {domain}, last of all: its mail comes here from then on. Then all is Verified: mailweir domain check {domain}{config}"
        ),
        format!(
            "Write to {admin} from elsewhere, and follow it: mailweir events trace {admin}{config}"
        ),
    ]
}
