//! Answers from a zone file (RFC 1035 §5): for the demo, for tests, and for `verify` offline.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::{Name, RecordSet, RrKey};
use hickory_proto::serialize::txt::{LexerError, ParseError, Parser};

use super::name::is_name;
use super::{Answer, Lookup, LookupError, LookupResult, RecordData, RecordType, Resolver, record};
use crate::files::read_regular_text;

/// CNAMEs followed before giving up.
const MAX_CNAMES: usize = 8;

/// Why a zone file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a zone file.
    #[error("{}:{line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line where the entry ends that cannot be read, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Answers from the records of one file and from nothing else.
///
/// A file may hold several zones, under absolute names or `$ORIGIN` lines; a name that is not in
/// it does not exist. Lookups are in memory and always ready, so no cache belongs in front.
#[derive(Debug)]
pub struct ZoneResolver {
    nodes: HashMap<Box<[u8]>, Node>,
    is_secure: bool,
}

/// What stands at one name. A name that only has others below it is a node without records (an
/// empty non-terminal, RFC 4592 §2.2.2).
#[derive(Debug, Default)]
struct Node {
    answers: Vec<(RecordType, Answer)>,
    cname: Option<Box<[u8]>>,
}

impl ZoneResolver {
    /// Reads a zone file.
    ///
    /// # Errors
    /// [`ZoneError`] names the file and, for a mistake in it, the line.
    pub fn read(path: &Path) -> Result<Self, ZoneError> {
        let text = read_regular_text(path)
            .map_err(|source| ZoneError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Takes the text of a zone file; `path` is for messages and relative `$INCLUDE` lines.
    ///
    /// # Errors
    /// [`ZoneError::Syntax`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ZoneError> {
        let records = parse_records(text, path).map_err(|error| ZoneError::Syntax {
            path: path.to_owned(),
            line: line_of(&error, text, path),
            problem: error.to_string(),
        })?;
        let mut zone = Self { nodes: HashMap::new(), is_secure: false };
        for (key, set) in &records {
            zone.add(Name::from(key.name()), set);
        }
        Ok(zone)
    }

    /// Whether its answers are as good as validated ones, which only the operator can say.
    #[must_use]
    pub fn with_trust(self, is_secure: bool) -> Self {
        Self { is_secure, ..self }
    }

    fn add(&mut self, name: Name, set: &RecordSet) {
        let name = octets(&name);
        let mut ancestor = Some(&*name);
        while let Some(at) = ancestor {
            self.nodes.entry(at.into()).or_default();
            ancestor = parent(at);
        }
        let node = self.nodes.entry(name).or_default();
        let data = || set.records_without_rrsigs().map(|record| &record.data);
        node.cname = node.cname.take().or_else(|| data().find_map(record::cname).map(octets));
        let records: Arc<[RecordData]> = data().filter_map(record::from_rdata).collect();
        if let Some(record_type) = records.first().map(RecordData::record_type) {
            let ttl = Duration::from_secs(set.ttl().into());
            node.answers.push((record_type, Answer { records, ttl, is_secure: false }));
        }
    }

    fn answer(&self, name: &str, record_type: RecordType) -> LookupResult {
        let mut name: Box<[u8]> =
            name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into_bytes().into();
        if !is_name(&name) {
            return Err(LookupError::NoSuchName);
        }
        for _ in 0..=MAX_CNAMES {
            let node = self.node(&name).ok_or(LookupError::NoSuchName)?;
            if let Some((_, answer)) = node.answers.iter().find(|(kind, _)| *kind == record_type) {
                return Ok(Answer { is_secure: self.is_secure, ..answer.clone() });
            }
            match &node.cname {
                Some(target) => name = target.clone(),
                None => return Err(LookupError::NoData),
            }
        }
        Err(LookupError::Transient(format!("more than {MAX_CNAMES} CNAMEs in a row")))
    }

    /// The node at a name, or the wildcard that stands for it: RFC 4592 §3.3.1, the asterisk
    /// directly below the closest encloser, and no other.
    fn node(&self, name: &[u8]) -> Option<&Node> {
        if let Some(node) = self.nodes.get(name) {
            return Some(node);
        }
        let mut encloser = parent(name);
        while let Some(at) = encloser.filter(|at| !self.nodes.contains_key(*at)) {
            encloser = parent(at);
        }
        let wildcard = match encloser {
            Some(at) => [b"*.", at].concat(),
            None => b"*".to_vec(),
        };
        self.nodes.get(wildcard.as_slice())
    }
}

impl Resolver for ZoneResolver {
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a> {
        Box::pin(std::future::ready(self.answer(name, record_type)))
    }
}

/// The name one label up; `None` above a top-level name.
fn parent(name: &[u8]) -> Option<&[u8]> {
    let dot = name.iter().position(|octet| *octet == b'.')?;
    name.get(dot + 1..)
}

/// A name's labels in lower case, joined by dots.
fn octets(name: &Name) -> Box<[u8]> {
    let labels: Vec<&[u8]> = name.iter().collect();
    labels.join(&b'.').to_ascii_lowercase().into()
}

/// Puts entries in parentheses (RFC 1035 §5.1) on one line, because the parser takes quotes inside
/// them for text. The line ends that it takes out it puts behind the entry, so that lines keep
/// their numbers.
fn without_groups(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut depth, mut owed_lines) = (0_usize, 0);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                push_quoted(&mut chars, &mut out);
            }
            ';' => {
                if chars.find(|c| *c == '\n').is_some() {
                    end_line(depth, &mut owed_lines, &mut out);
                }
            }
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '\n' => end_line(depth, &mut owed_lines, &mut out),
            c => out.push(c),
        }
    }
    if depth > 0 {
        out.push('('); // Left open, for the parser to complain of.
    }
    out
}

fn push_quoted(chars: &mut std::str::Chars<'_>, out: &mut String) {
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            '"' => return,
            _ => {}
        }
    }
}

fn end_line(depth: usize, owed_lines: &mut usize, out: &mut String) {
    if depth > 0 {
        *owed_lines += 1;
        out.push(' ');
    } else {
        out.extend(std::iter::repeat_n('\n', std::mem::take(owed_lines) + 1));
    }
}

fn parse_records(text: &str, path: &Path) -> Result<BTreeMap<RrKey, RecordSet>, ParseError> {
    let text = without_groups(text);
    let (_, records) = Parser::new(text, Some(path.to_owned()), Some(Name::root())).parse()?;
    Ok(records)
}

/// The line of a mistake, which the parser does not tell: reading stops at the first one, so it
/// is the last line of the shortest beginning of the file that fails in the same way.
fn line_of(error: &ParseError, text: &str, path: &Path) -> usize {
    let problem = error.to_string();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let fails_within = |count: usize| {
        let beginning: String = lines.iter().take(count).copied().collect();
        parse_records(&beginning, path).is_err_and(|error| error.to_string() == problem)
    };
    if matches!(error, ParseError::Lexer(LexerError::UnclosedList)) {
        // Any beginning that ends within a list fails so; the last list is the one left open.
        return (0..lines.len()).rev().find(|count| !fails_within(*count)).unwrap_or(0) + 1;
    }
    let (mut good, mut bad) = (0, lines.len());
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if fails_within(middle) { bad = middle } else { good = middle }
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::super::Tlsa;
    use super::*;

    const ZONE: &str = r#"
$TTL 300
example.test.          IN SOA ns.example.test. admin.example.test. 1 3600 600 86400 60
example.test.          IN A    192.0.2.1
example.test.          IN A    192.0.2.2
example.test.          IN MX   10 mx.example.test.
example.test.          IN TXT  "v=spf1 " "ip4:192.0.2.0/24 -all"
example.test.          IN TXT  "another"
mx.example.test.       IN AAAA 2001:db8::1
*.wild.example.test.   IN TXT  "wild"
a.wild.example.test.   IN A    192.0.2.9
www.example.test.      IN CNAME web.example.test.
web.example.test.      IN A    192.0.2.80
dangling.example.test. IN CNAME nowhere.test.
loop.example.test.     IN CNAME loop.example.test.
null.test.             IN MX   0 .
1.2.0.192.in-addr.arpa. IN PTR mx.example.test.
_25._tcp.mx.example.test. IN TLSA 3 1 1 00ff10ab
$ORIGIN other.test.
relative 60 IN TXT "relative"
"#;

    fn zone() -> ZoneResolver {
        ZoneResolver::parse(ZONE, Path::new("test.zone")).unwrap()
    }

    fn check(name: &str, record_type: RecordType, expected: Result<&[RecordData], LookupError>) {
        let answer = zone().answer(name, record_type);
        let records = answer.as_ref().map(|answer| &*answer.records).map_err(Clone::clone);
        assert_eq!(records, expected, "{name} {record_type:?}");
    }

    fn txt(text: &str) -> RecordData {
        RecordData::Txt(text.as_bytes().into())
    }

    fn a(octet: u8) -> RecordData {
        RecordData::A([192, 0, 2, octet].into())
    }

    #[test]
    fn records_of_all_types_are_found_in_any_case() {
        check("example.test", RecordType::A, Ok(&[a(1), a(2)]));
        check("EXAMPLE.test.", RecordType::A, Ok(&[a(1), a(2)]));
        check(
            "example.test",
            RecordType::Txt,
            Ok(&[txt("v=spf1 ip4:192.0.2.0/24 -all"), txt("another")]),
        );
        let mx = RecordData::Mx { preference: 10, exchange: "mx.example.test".into() };
        check("example.test", RecordType::Mx, Ok(&[mx]));
        let v6 = RecordData::Aaaa("2001:db8::1".parse().unwrap());
        check("mx.example.test", RecordType::Aaaa, Ok(&[v6]));
        let ptr = RecordData::Ptr("mx.example.test".into());
        check("1.2.0.192.in-addr.arpa", RecordType::Ptr, Ok(&[ptr]));
        let (usage, selector, matching_type) = (3, 1, 1);
        let data = [0x00, 0xff, 0x10, 0xab].into();
        let tlsa = RecordData::Tlsa(Tlsa { usage, selector, matching_type, data });
        check("_25._tcp.mx.example.test", RecordType::Tlsa, Ok(&[tlsa]));
        let null = RecordData::Mx { preference: 0, exchange: "".into() };
        check("null.test", RecordType::Mx, Ok(&[null]));
        check("relative.other.test", RecordType::Txt, Ok(&[txt("relative")]));
    }

    #[test]
    fn an_answer_is_secure_when_the_operator_says_so_of_the_file() {
        for (zone, expected) in [(zone(), false), (zone().with_trust(true), true)] {
            for name in ["example.test", "www.example.test"] {
                assert_eq!(zone.answer(name, RecordType::A).unwrap().is_secure, expected);
            }
        }
    }

    #[test]
    fn no_name_and_no_data_are_told_apart() {
        check("example.test", RecordType::Aaaa, Err(LookupError::NoData));
        check("nowhere.test", RecordType::A, Err(LookupError::NoSuchName));
        // An empty non-terminal exists.
        check("other.test", RecordType::A, Err(LookupError::NoData));
        check("test", RecordType::Txt, Err(LookupError::NoData));
        check("a..test", RecordType::A, Err(LookupError::NoSuchName));
        check("", RecordType::A, Err(LookupError::NoSuchName));
    }

    #[test]
    fn cnames_are_followed_within_a_bound() {
        check("www.example.test", RecordType::A, Ok(&[a(80)]));
        check("www.example.test", RecordType::Mx, Err(LookupError::NoData));
        check("dangling.example.test", RecordType::A, Err(LookupError::NoSuchName));
        let answer = zone().answer("loop.example.test", RecordType::A);
        assert!(matches!(answer, Err(LookupError::Transient(_))), "{answer:?}");
    }

    #[test]
    fn a_wildcard_stands_for_the_names_that_do_not_exist() {
        check("b.wild.example.test", RecordType::Txt, Ok(&[txt("wild")]));
        check("c.b.wild.example.test", RecordType::Txt, Ok(&[txt("wild")]));
        check("b.wild.example.test", RecordType::A, Err(LookupError::NoData));
        // RFC 4592 §2.2.1: not for one that exists, nor below it.
        check("a.wild.example.test", RecordType::Txt, Err(LookupError::NoData));
        check("b.a.wild.example.test", RecordType::Txt, Err(LookupError::NoSuchName));
        check("wild.example.test", RecordType::Txt, Err(LookupError::NoData));
    }

    #[test]
    fn a_mistake_is_told_with_file_and_line() {
        for (text, line) in [
            ("$TTL 60\na.test. IN A 192.0.2.1\nb.test. IN A 192.0.2.300\n", 3),
            ("$TTL 60\n\nb.test. IN NONSENSE x\na.test. IN A 192.0.2.1\n", 3),
            ("a.test. IN A 192.0.2.1\n", 1),
            ("$TTL 60\na.test. IN TXT (\n\"a\")\nb.test. IN TXT (\n\"b\"\n", 4),
        ] {
            let error = ZoneResolver::parse(text, Path::new("bad.zone")).unwrap_err();
            let expected = format!("bad.zone:{line}: ");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_told_by_name() {
        let error = ZoneResolver::read(Path::new("/nonexistent/demo.zone")).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/demo.zone: "), "{error}");
    }
}
