//! `[[user.mailbox_rule]]` of an organization's file.

use std::collections::HashMap;
use std::sync::Arc;

use super::reader::Section;
use crate::directory::{Directory, ResolveError};
use crate::mail::Address;
use crate::rules::mailbox::{
    AddressTest, Condition, Fold, MailboxAction, MailboxRule, MailboxRuleError, MailboxRules,
    TextTest,
};
use crate::store::Folder;

/// The longest text of a condition, in octets: one line (RFC 5322 §2.1.1).
const MAX_TEXT: usize = 998;

/// Users' rules, by user name.
pub(super) type MailboxRulesByUser = HashMap<Arc<str>, Arc<MailboxRules>>;

/// An action's name, before its target is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Move,
    Copy,
    Forward,
    Redirect,
    Delete,
}

const WORDS: [(&str, Word); 5] = [
    ("MOVE", Word::Move),
    ("COPY", Word::Copy),
    ("FORWARD", Word::Forward),
    ("REDIRECT", Word::Redirect),
    ("DELETE", Word::Delete),
];

/// What a condition looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Sender,
    Recipient,
    Subject,
    Header,
}

const FIELDS: [(&str, Field); 4] = [
    ("sender", Field::Sender),
    ("recipient", Field::Recipient),
    ("subject", Field::Subject),
    ("header", Field::Header),
];

/// The keys of which a condition has one.
const TESTS: [&str; 3] = ["contains", "equals", "domain"];

/// Reads a user's rules; with a problem there are none.
pub(super) fn read(user: &Section<'_>) -> MailboxRules {
    let sections = user.sections("mailbox_rule");
    let rules = sections.iter().filter_map(rule).collect();
    MailboxRules::new(rules).unwrap_or_else(|errors| {
        for error in errors {
            let section = match &error {
                MailboxRuleError::TooManyConditions(name, _) | MailboxRuleError::SameName(name) => {
                    sections
                        .iter()
                        .rfind(|section| section.text("name").as_deref() == Some(&**name))
                }
                MailboxRuleError::TooMany(_) => None,
            };
            match section {
                Some(section) => section.problem("name", error),
                None => user.problem("mailbox_rule", error),
            }
        }
        MailboxRules::default()
    })
}

/// Rules need a mailbox, and must not send its mail back to it.
pub(super) fn check(
    user: &Section<'_>,
    rules: &MailboxRules,
    email: &Address,
    aliases: &[Address],
    remote: Option<&Address>,
) {
    if remote.is_some() && !rules.rules().is_empty() {
        user.problem("mailbox_rule", "the mailbox is elsewhere, so rules here do nothing");
    }
    for rule in rules.rules() {
        let Some(target) = rule.action.target_recipient() else { continue };
        let mut own = std::iter::once(email).chain(aliases);
        if own.any(|address| address.key() == target.key()) {
            let message = format!("rule {} sends mail to the mailbox that it is in", rule.name);
            user.problem("mailbox_rule", message);
        }
    }
}

/// Targets in the organization must be there, and not lead back by a group or a plus tag.
pub(super) fn check_targets(root: &Section<'_>, rules: &MailboxRulesByUser, directory: &Directory) {
    for user in root.sections("user").into_iter().chain(root.sections("resource")) {
        let Some((name, rules)) = user.text("name").and_then(|name| rules.get_key_value(&*name))
        else {
            continue;
        };
        for rule in rules.rules() {
            let Some(target) = rule.action.target_recipient() else { continue };
            match target_problem(name, target, directory) {
                Target::Fine => {}
                Target::Idle(why) => {
                    let message = format!("rule {} sends mail to {target}: {why}", rule.name);
                    user.warning("mailbox_rule", message);
                }
                Target::Wrong(why) => {
                    let message = format!("rule {} sends mail to {target}, {why}", rule.name);
                    user.problem("mailbox_rule", message);
                }
            }
        }
    }
}

/// What a rule's target comes to.
enum Target {
    Fine,
    /// Nobody gets it at present; that may change without this user.
    Idle(ResolveError),
    Wrong(&'static str),
}

fn target_problem(owner: &str, target: &Address, directory: &Directory) -> Target {
    let found = match directory.resolve(target, usize::MAX) {
        Ok(found) => found,
        Err(ResolveError::NotOurDomain) => return Target::Fine,
        Err(ResolveError::Unknown) => return Target::Wrong("which is nobody's"),
        Err(error) => return Target::Idle(error),
    };
    let [member] = &*found.members else { return Target::Fine };
    let resources = found.organization.resources.iter().map(|resource| &resource.mailbox);
    // Its own addresses have been told by `check`.
    let is_told = found.organization.users.iter().chain(resources).any(|user| {
        let mut own = std::iter::once(&user.email).chain(&user.aliases);
        *user.name == *owner && own.any(|address| address.key() == target.key())
    });
    if *member.name != *owner || !found.remote.is_empty() || is_told {
        return Target::Fine;
    }
    Target::Wrong("which leads back to the mailbox that it is in")
}

fn rule(section: &Section<'_>) -> Option<MailboxRule> {
    let name = section.text("name");
    let name = section.required("name", name);
    let action = action(section);
    let read: Vec<_> = section.sections("condition").iter().map(condition).collect();
    let stop = section.bool("stop").unwrap_or(false);
    section.finish();
    let conditions = read.into_iter().collect::<Option<Vec<_>>>()?;
    Some(MailboxRule { name: name?.into(), conditions, action: action?, stop })
}

fn action(section: &Section<'_>) -> Option<MailboxAction> {
    let word = section.word("action", &WORDS);
    let word = section.required("action", word);
    let folder = section.word("folder", &Folder::ALL.map(|folder| (folder.as_str(), folder)));
    let to: Option<Address> = section.parsed("to");
    let word = word?;
    let takes_folder = matches!(word, Word::Move | Word::Copy);
    let takes_address = matches!(word, Word::Forward | Word::Redirect);
    for (key, is_taken, whose) in
        [("folder", takes_folder, "MOVE and COPY"), ("to", takes_address, "FORWARD and REDIRECT")]
    {
        if section.has(key) && !is_taken {
            section.problem(key, format!("is for {whose} only"));
        }
    }
    let folder = |section: &Section<'_>| section.required("folder", folder);
    let to = |section: &Section<'_>| section.required("to", to.clone());
    Some(match word {
        Word::Move => MailboxAction::Move(folder(section)?),
        Word::Copy => MailboxAction::Copy(folder(section)?),
        Word::Forward => MailboxAction::Forward(to(section)?),
        Word::Redirect => MailboxAction::Redirect(to(section)?),
        Word::Delete => MailboxAction::Delete,
    })
}

fn condition(section: &Section<'_>) -> Option<Condition> {
    let field = section.word("field", &FIELDS);
    let field = section.required("field", field);
    let name = header_name(section, field);
    let read = match field {
        Some(Field::Sender) => address_test(section).map(Condition::Sender),
        Some(Field::Recipient) => address_test(section).map(Condition::Recipient),
        Some(Field::Subject) => text_test(section).map(Condition::Subject),
        Some(Field::Header) => {
            text_test(section).and_then(|test| Some(Condition::Header(name?.into(), test)))
        }
        None => None,
    };
    for key in TESTS {
        section.allow(key);
    }
    section.finish();
    read
}

/// `name`, of a condition on a field of the header section (RFC 5322 §3.6.8).
fn header_name(section: &Section<'_>, field: Option<Field>) -> Option<String> {
    let name = section.text("name");
    if field != Some(Field::Header) {
        if section.has("name") && field.is_some() {
            section.problem("name", "is for a condition with field = \"header\" only");
        }
        return None;
    }
    let name = section.required("name", name)?;
    let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    if name.is_empty() || !name.bytes().all(is_name) {
        section.problem("name", format!("\"{name}\" is not the name of a header field"));
        return None;
    }
    Some(name)
}

/// The one key that says what is looked for.
fn test_key(section: &Section<'_>) -> Option<&'static str> {
    let mut found = TESTS.into_iter().filter(|key| section.has(key));
    let key = found.next();
    match (key, found.next()) {
        (Some(_), None) => key,
        (Some(first), Some(second)) => {
            section.problem(second, format!("cannot stand beside {first}: a condition has one"));
            None
        }
        (None, _) => {
            section.problem("contains", "is missing; or say equals or domain");
            None
        }
    }
}

fn address_test(section: &Section<'_>) -> Option<AddressTest> {
    match test_key(section)? {
        "contains" => text(section, "contains").map(AddressTest::Contains),
        "equals" => section.parsed("equals").map(AddressTest::Equals),
        _ => section.parsed("domain").map(AddressTest::Domain),
    }
}

fn text_test(section: &Section<'_>) -> Option<TextTest> {
    match test_key(section)? {
        "contains" => text(section, "contains").map(TextTest::Contains),
        "equals" => text(section, "equals").map(TextTest::Equals),
        _ => {
            section.problem("domain", "is for conditions on sender and recipient only");
            None
        }
    }
}

fn text(section: &Section<'_>, key: &'static str) -> Option<Fold> {
    let text = section.text(key)?;
    if text.is_empty() || text.len() > MAX_TEXT {
        section.problem(key, format!("{} octets; 1 to {MAX_TEXT} are allowed", text.len()));
        return None;
    }
    Some(Fold::new(&text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::reader::{Reader, read_text};

    /// A user's rules, and what is wrong with them.
    fn read_rules(text: &str) -> (MailboxRules, Vec<String>) {
        let reader = Reader::default();
        let node = read_text(Path::new("org.toml"), text, &reader);
        let user = reader.root(&node);
        let rules = read(&user);
        let (email, alias) = ("alice@example.test", "a@example.test");
        let [email, alias] = [email, alias].map(|text| Address::parse(text).expect("an address"));
        let remote = user.has("remote").then(|| email.clone());
        user.allow("remote");
        check(&user, &rules, &email, &[alias], remote.as_ref());
        user.finish();
        (rules, reader.into_problems().iter().map(ToString::to_string).collect())
    }

    /// In whichever order.
    fn refused(text: &str, expected: &[&str]) {
        let mut problems = read_rules(text).1;
        let mut expected = expected.to_vec();
        problems.sort_unstable();
        expected.sort_unstable();
        assert_eq!(problems, expected, "{text}");
    }

    #[test]
    fn rules_are_read() {
        let text = "[[mailbox_rule]]\nname = \"all\"\naction = \"DELETE\"\n\
                    [[mailbox_rule]]\nname = \"some\"\naction = \"FORWARD\"\nto = \"x@y.test\"\n\
                    stop = true\n\
                    condition = [{ field = \"sender\", equals = \"B@c.test\" },\n\
                    { field = \"recipient\", domain = \"c.test\" }]\n";
        let (rules, problems) = read_rules(text);
        assert_eq!(problems, <[&str; 0]>::default());
        let [all, some] = rules.rules() else { panic!("{rules:?}") };
        assert!(all.conditions.is_empty() && !all.stop && all.action == MailboxAction::Delete);
        let address = |text: &str| Address::parse(text).expect("an address");
        assert_eq!(some.action, MailboxAction::Forward(address("x@y.test")));
        let domain = address("x@c.test").domain().clone();
        assert_eq!(
            some.conditions,
            [
                Condition::Sender(AddressTest::Equals(address("B@c.test"))),
                Condition::Recipient(AddressTest::Domain(domain)),
            ]
        );
        assert!(some.stop);
    }

    #[test]
    fn every_mistake_is_told_where_it_is() {
        refused(
            "[[mailbox_rule]]\n\
             action = \"EXPLODE\"\n\
             colour = 1\n\
             [[mailbox_rule]]\n\
             name = \"a\"\n\
             action = \"MOVE\"\n\
             to = \"b@c.test\"\n\
             [[mailbox_rule]]\n\
             name = \"b\"\n\
             action = \"REDIRECT\"\n\
             folder = \"SPAM\"\n\
             to = \"nobody\"\n",
            &[
                "org.toml:1: mailbox_rule[0].name: is missing",
                "org.toml:2: mailbox_rule[0].action: \"EXPLODE\" is not one of MOVE, COPY, FORWARD, \
                 REDIRECT, DELETE",
                "org.toml:3: mailbox_rule[0].colour: unknown key",
                "org.toml:7: mailbox_rule[1].to: is for FORWARD and REDIRECT only",
                "org.toml:4: mailbox_rule[1].folder: is missing",
                "org.toml:11: mailbox_rule[2].folder: \"SPAM\" is not one of INBOX, JUNK_EMAIL, \
                 SENT_ITEMS, DRAFTS, DELETED_ITEMS, did you mean \"JUNK_EMAIL\"?",
                "org.toml:12: mailbox_rule[2].to: \"nobody\": has no @",
                "org.toml:11: mailbox_rule[2].folder: is for MOVE and COPY only",
            ],
        );
    }

    #[test]
    fn a_condition_says_one_thing() {
        let condition = |text: &str, line: &str, expected: &str| {
            let rule = "[[mailbox_rule]]\nname = \"a\"\naction = \"DELETE\"\n";
            let expected = format!("org.toml:{line}: mailbox_rule[0].condition[0].{expected}");
            refused(&format!("{rule}[[mailbox_rule.condition]]\n{text}\n"), &[expected.as_str()]);
        };
        condition("contains = \"x\"", "4", "field: is missing");
        condition(
            "field = \"body\"\ncontains = \"x\"",
            "5",
            "field: \"body\" is not one of sender, recipient, subject, header",
        );
        condition("field = \"sender\"", "4", "contains: is missing; or say equals or domain");
        condition(
            "field = \"sender\"\ncontains = \"x\"\ndomain = \"y.test\"",
            "7",
            "domain: cannot stand beside contains: a condition has one",
        );
        condition(
            "field = \"subject\"\ndomain = \"y.test\"",
            "6",
            "domain: is for conditions on sender and recipient only",
        );
        condition("field = \"sender\"\nequals = \"x\"", "6", "equals: \"x\": has no @");
        condition(
            "field = \"subject\"\ncontains = \"\"",
            "6",
            "contains: 0 octets; 1 to 998 are allowed",
        );
        condition(
            &format!("field = \"subject\"\nequals = \"{}\"", "x".repeat(999)),
            "6",
            "equals: 999 octets; 1 to 998 are allowed",
        );
        condition("field = \"header\"\ncontains = \"x\"", "4", "name: is missing");
        condition(
            "field = \"header\"\nname = \"List Id\"\ncontains = \"x\"",
            "6",
            "name: \"List Id\" is not the name of a header field",
        );
        condition(
            "field = \"sender\"\nname = \"x\"\ncontains = \"x\"",
            "6",
            "name: is for a condition with field = \"header\" only",
        );
    }

    #[test]
    fn rules_fit_their_mailbox() {
        let to = |address: &str| {
            format!("[[mailbox_rule]]\nname = \"a\"\naction = \"FORWARD\"\nto = \"{address}\"\n")
        };
        for own in ["Alice@example.test", "a@example.test"] {
            refused(
                &to(own),
                &["org.toml:1: mailbox_rule: rule a sends mail to the mailbox that it is in"],
            );
        }
        refused(&to("b@example.test"), &[]);
        refused(
            &format!("remote = true\n{}", to("b@example.test")),
            &["org.toml:2: mailbox_rule: the mailbox is elsewhere, so rules here do nothing"],
        );
    }

    #[test]
    fn a_user_has_a_limited_number_of_rules() {
        let rules = |count: usize| -> String {
            let rule = |n| format!("[[mailbox_rule]]\nname = \"r{n}\"\naction = \"DELETE\"\n");
            (0..count).map(rule).collect()
        };
        refused(&rules(100), &[]);
        refused(
            &rules(101),
            &["org.toml:1: mailbox_rule: 101 mailbox rules; at most 100 are allowed"],
        );
        let twice = "[[mailbox_rule]]\nname = \"a\"\naction = \"DELETE\"\n".repeat(2);
        refused(
            &twice,
            &["org.toml:5: mailbox_rule[1].name: there are two mailbox rules with the name a"],
        );
    }
}
