//! A state as an organization's file that says the same, with ids.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use crate::id::{EntityId, EntityKind};
use crate::mail::Address;
use crate::organization::{
    AccessSaid, Authorities, Entity, GatewaySaid, Group, MailSettings, Resource, SecretAt, State,
    User,
};
use crate::rules::mailbox::{
    AddressTest, Condition, MailboxAction, MailboxRule, MailboxRules, TextTest,
};
use crate::rules::{Action, Rule};

/// The text of a file. What stands in other files is named by whole paths.
pub fn export(state: &State) -> String {
    let mut file = File(String::new());
    file.text("alias", &state.alias);
    file.text("id", &state.id);
    file.texts("domains", state.domains.iter().map(|domain| &domain.name));
    if let Some(postmaster) = &state.postmaster {
        file.text("postmaster", called(state, postmaster));
    }
    settings(&state.mail, &mut file);
    if state.access.is_empty() {
        file.texts("access_rules", std::iter::empty::<&str>());
    }
    if let Some(journaling) = &state.journaling {
        file.table("[journaling]");
        file.text("journaling_address", &journaling.journaling_address);
        file.text("report_address", &journaling.report_address);
        file.text_if("sender_address", journaling.sender_address.as_ref());
    }
    for (folder, rule) in &state.retention {
        file.table("[[retention]]");
        file.text("folder", folder);
        file.text("action", rule.action.as_str());
        rule.period_days.iter().for_each(|days| file.key("period_days", days));
    }
    for kind in [EntityKind::User, EntityKind::Resource, EntityKind::Group] {
        entities(state, kind, &mut file);
    }
    for (owner, granted) in &state.permissions {
        for (grantee, rights) in granted {
            file.table("[[permission]]");
            file.text("owner", called(state, owner));
            file.text("grantee", called(state, grantee));
            file.key("full_access", rights.full_access);
            file.key("send_as", rights.send_as);
            file.key("send_on_behalf", rights.send_on_behalf);
        }
    }
    state.access.iter().for_each(|rule| access(state, rule, &mut file));
    flow_rules("[[inbound_rule]]", &state.inbound_rules, &mut file);
    flow_rules("[[outbound_rule]]", &state.outbound_rules, &mut file);
    for (name, said) in &state.gateways {
        gateway(name, said, &mut file);
    }
    file.0
}

/// A file as it is written.
struct File(String);

impl File {
    fn key(&mut self, key: &str, value: impl Display) {
        self.0.extend([key, " = ", &value.to_string(), "\n"]);
    }

    fn text(&mut self, key: &str, text: impl Display) {
        self.key(key, quoted(text));
    }

    fn text_if(&mut self, key: &str, text: Option<impl Display>) {
        text.into_iter().for_each(|text| self.text(key, text));
    }

    fn texts(&mut self, key: &str, texts: impl Iterator<Item = impl Display>) {
        let texts: Vec<_> = texts.map(quoted).collect();
        self.key(key, format!("[{}]", texts.join(", ")));
    }

    /// A list that is left out where it is empty.
    fn texts_if(&mut self, key: &str, texts: impl ExactSizeIterator<Item = impl Display>) {
        if texts.len() > 0 {
            self.texts(key, texts);
        }
    }

    fn table(&mut self, head: &str) {
        self.0.extend(["\n", head, "\n"]);
    }
}

/// A basic string of TOML: JSON's, but that DEL does not stand in it as it is.
fn quoted(text: impl Display) -> String {
    serde_json::json!(text.to_string()).to_string().replace('\u{7f}', "\\u007f")
}

fn called(state: &State, id: &EntityId) -> String {
    state.entities.get(id).map_or_else(|| id.to_string(), |entity| entity.name().to_string())
}

fn settings(mail: &MailSettings, file: &mut File) {
    file.key("plus_addressing", mail.plus_addressing);
    file.key("dmarc_enforcement", mail.dmarc_enforcement);
    file.text_if("dmarc_on_reject", mail.on_reject.map(|answer| answer.as_str()));
    for (key, quota) in [
        ("recipients_per_user_per_day", mail.quotas.per_user),
        ("recipients_per_day", mail.quotas.per_organization),
        ("inside_recipients_per_user_per_day", mail.quotas.inside_per_user),
    ] {
        quota.iter().for_each(|quota| file.key(key, quota));
    }
    if let Some(blocked) = &mail.blocked_attachments {
        file.texts("blocked_attachments", blocked.0.iter());
    }
}

/// Those of a kind, in the order of their names.
fn entities(state: &State, kind: EntityKind, file: &mut File) {
    let of_kind = state.entities.iter().filter(|(_, entity)| entity.kind() == kind);
    let mut of_kind: Vec<_> = of_kind.collect();
    of_kind.sort_unstable_by_key(|(_, entity)| entity.name());
    for (id, entity) in of_kind {
        file.table(&format!("[[{kind}]]"));
        file.text("name", entity.name());
        file.text("id", id);
        file.text_if("email", entity.email());
        match &**entity {
            Entity::User(user) => mailbox(user, file),
            Entity::Resource(Resource { mailbox: user, kind }) => {
                file.text("kind", kind.as_str());
                mailbox(user, file);
            }
            Entity::Group(Group { aliases, enabled, members, .. }) => {
                aliases_and_enabled(aliases, *enabled, file);
                file.texts("members", members.iter().map(|id| called(state, id)));
            }
        }
        if let Some(rules) = state.mailbox_rules.get(id) {
            mailbox_rules(kind, rules, file);
        }
    }
}

fn aliases_and_enabled(aliases: &[Address], enabled: bool, file: &mut File) {
    file.texts_if("aliases", aliases.iter());
    if !enabled {
        file.key("enabled", enabled);
    }
}

fn mailbox(user: &User, file: &mut File) {
    aliases_and_enabled(&user.aliases, user.enabled, file);
    file.text_if("remote", user.remote.as_ref());
    file.key("quota_mb", user.quota_mb);
}

fn mailbox_rules(kind: EntityKind, rules: &MailboxRules, file: &mut File) {
    for MailboxRule { name, conditions, action, stop } in rules.rules() {
        file.table(&format!("[[{kind}.mailbox_rule]]"));
        file.text("name", name);
        if !conditions.is_empty() {
            let conditions: Vec<_> = conditions.iter().map(condition).collect();
            file.key("condition", format!("[\n    {},\n]", conditions.join(",\n    ")));
        }
        file.text("action", action.as_str());
        match action {
            MailboxAction::Move(folder) | MailboxAction::Copy(folder) => {
                file.text("folder", folder)
            }
            MailboxAction::Forward(to) | MailboxAction::Redirect(to) => file.text("to", to),
            MailboxAction::Delete => {}
        }
        if *stop {
            file.key("stop", stop);
        }
    }
}

fn condition(condition: &Condition) -> String {
    let of_address = |test: &AddressTest| match test {
        AddressTest::Contains(text) => format!("contains = {}", quoted(text)),
        AddressTest::Equals(address) => format!("equals = {}", quoted(address)),
        AddressTest::Domain(domain) => format!("domain = {}", quoted(domain)),
    };
    let of_text = |test: &TextTest| match test {
        TextTest::Contains(text) => format!("contains = {}", quoted(text)),
        TextTest::Equals(text) => format!("equals = {}", quoted(text)),
    };
    let inside = match condition {
        Condition::Sender(test) => format!("field = \"sender\", {}", of_address(test)),
        Condition::Recipient(test) => format!("field = \"recipient\", {}", of_address(test)),
        Condition::Subject(test) => format!("field = \"subject\", {}", of_text(test)),
        Condition::Header(name, test) => {
            format!("field = \"header\", name = {}, {}", quoted(name), of_text(test))
        }
    };
    format!("{{ {inside} }}")
}

fn access(state: &State, rule: &AccessSaid, file: &mut File) {
    let names = |ids: &BTreeSet<EntityId>| -> Vec<String> {
        ids.iter().map(|id| called(state, id)).collect()
    };
    file.table("[[access_rule]]");
    file.text("name", &rule.name);
    file.text("effect", rule.effect);
    file.text_if("description", rule.description.as_ref());
    file.texts_if("protocols", rule.protocols.iter());
    file.texts_if("not_protocols", rule.not_protocols.iter());
    file.texts_if("ip_ranges", rule.ip_ranges.iter());
    file.texts_if("not_ip_ranges", rule.not_ip_ranges.iter());
    file.texts_if("users", names(&rule.users).iter());
    file.texts_if("not_users", names(&rule.not_users).iter());
}

fn flow_rules<A: Action>(head: &str, rules: &[Rule<A>], file: &mut File) {
    for Rule { name, action, senders, destinations } in rules {
        file.table(head);
        file.text("name", name);
        file.text("action", action.as_str());
        file.text_if("gateway", action.gateway());
        file.texts("senders", senders.iter());
        file.texts("destinations", destinations.iter());
    }
}

fn gateway(name: &str, said: &GatewaySaid, file: &mut File) {
    let path = |path: &Path| path.display().to_string();
    file.table("[[smtp_gateway]]");
    file.text("name", name);
    file.text("address", &said.host);
    file.key("port", said.port);
    file.text("tls", if said.implicit_tls { "implicit" } else { "starttls" });
    if let Some(login) = &said.login {
        file.text("user_name", &login.user_name);
        let SecretAt::File(password) = &login.password;
        file.text("password_file", path(password));
    }
    if let Some(Authorities::File(authorities)) = &said.authorities {
        file.text("ca_file", path(authorities));
    }
}
