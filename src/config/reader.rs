//! Takes values out of sections and remembers every problem on the way.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use super::hints;
use super::tree::{self, Node, Place, Value};
use crate::files;

/// Something wrong with a configuration: `file:line: key: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line`, or `environment NAME`; empty for a key that is nowhere.
    pub place: String,
    /// The key with its sections, for example `listener[0].bind`; empty for a whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl Problem {
    /// The file, and the line in it; what is in no line stands before all lines.
    fn file_and_line(&self) -> (&str, u64) {
        let numbered = self.place.rsplit_once(':');
        let line = numbered.and_then(|(file, line)| Some((file, line.parse().ok()?)));
        line.unwrap_or((&self.place, 0))
    }

    /// Puts problems into the order in which somebody mends them: file by file, as they were come
    /// upon, and line by line.
    pub fn sort(problems: &mut [Self]) {
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for problem in &*problems {
            let rank = ranks.len();
            let (file, _) = problem.file_and_line();
            if !ranks.contains_key(file) {
                ranks.insert(file.to_owned(), rank);
            }
        }
        problems.sort_by_key(|problem| {
            let (file, line) = problem.file_and_line();
            (ranks.get(file).copied(), line)
        });
    }
}

/// Collects problems.
#[derive(Debug, Default)]
pub(super) struct Reader {
    problems: RefCell<Vec<Problem>>,
    /// What is valid, but hardly meant.
    warnings: RefCell<Vec<Problem>>,
    /// Every key that was asked for, whether or not it was there.
    #[cfg(test)]
    known: RefCell<BTreeSet<String>>,
}

impl Reader {
    pub(super) fn problem(&self, place: impl fmt::Display, key: &str, message: impl fmt::Display) {
        self.problems.borrow_mut().push(Problem {
            place: place.to_string(),
            key: key.to_owned(),
            message: message.to_string(),
        });
    }

    /// Whether there is no problem so far.
    pub(super) fn is_content(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.into_findings().0
    }

    /// The problems, and the warnings.
    pub(super) fn into_findings(self) -> (Vec<Problem>, Vec<Problem>) {
        // A table that is read for several ends tells its problem for each.
        let mut told = HashSet::new();
        let mut problems = self.problems.into_inner();
        problems.retain(|problem| told.insert(problem.to_string()));
        Problem::sort(&mut problems);
        let mut warnings = self.warnings.into_inner();
        Problem::sort(&mut warnings);
        (problems, warnings)
    }

    /// Notes what is valid, but hardly meant.
    pub(super) fn warning(&self, place: impl fmt::Display, key: &str, message: impl fmt::Display) {
        self.warnings.borrow_mut().push(Problem {
            place: place.to_string(),
            key: key.to_owned(),
            message: message.to_string(),
        });
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// The section of a file's top level.
    pub(super) fn root<'a>(&'a self, node: &'a Node) -> Section<'a> {
        Section { reader: self, path: String::new(), node: Some(node), asked: RefCell::default() }
    }
}

/// A table being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    reader: &'a Reader,
    path: String,
    node: Option<&'a Node>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    /// Where the section begins.
    pub(super) fn place(&self) -> Option<&'a Place> {
        self.node.map(|node| &node.place)
    }

    /// Whether it is in the file at all.
    pub(super) fn is_present(&self) -> bool {
        self.node.is_some()
    }

    /// The place of a key, or of its section where the key is missing.
    pub(super) fn place_of(&self, key: &str) -> String {
        let node = self.peek(key).map(|node| &node.place).or(self.place());
        node.map_or_else(String::new, ToString::to_string)
    }

    fn peek(&self, key: &str) -> Option<&'a Node> {
        match &self.node?.value {
            Value::Table(table) => table.get(key),
            _ => None,
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&self, key: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().insert(key);
        #[cfg(test)]
        self.reader.known.borrow_mut().insert(self.path_of(key));
        self.peek(key)
    }

    /// Whether a key is there, be its value right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.peek(key).is_some()
    }

    /// Notes a problem with a key's value.
    pub(super) fn problem(&self, key: &str, message: impl fmt::Display) {
        self.reader.problem(self.place_of(key), &self.path_of(key), message);
    }

    /// Notes that a key's value is valid, but hardly meant.
    pub(super) fn warning(&self, key: &str, message: impl fmt::Display) {
        self.reader.warning(self.place_of(key), &self.path_of(key), message);
    }

    fn mistyped(&self, key: &str, node: &Node, expected: &str) {
        let found = node.value.kind();
        let hint = node.value.meant(key, expected).map(|meant| format!(": write {meant}"));
        let message = format!("expected {expected}, found {found}{}", hint.unwrap_or_default());
        self.reader.problem(&node.place, &self.path_of(key), message);
    }

    /// A key that must be there.
    pub(super) fn required<T>(&self, key: &'static str, value: Option<T>) -> Option<T> {
        if value.is_none() && self.peek(key).is_none() {
            self.problem(key, "is missing");
        }
        value
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        let node = self.take(key)?;
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            // The environment has no quotes, so its numbers may be meant as texts.
            Value::Integer(number) if matches!(node.place, Place::Environment(_)) => {
                Some(number.to_string())
            }
            _ => {
                self.mistyped(key, node, "a text");
                None
            }
        }
    }

    pub(super) fn bool(&self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                self.mistyped(key, node, "true or false");
                None
            }
        }
    }

    /// A whole number within a range.
    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.take(key)?;
        let Value::Integer(number) = node.value else {
            self.mistyped(key, node, "a number");
            return None;
        };
        let found = u64::try_from(number).ok().filter(|number| range.contains(number));
        if found.is_none() {
            let (low, high) = (range.start(), range.end());
            self.problem(key, format!("{number} is not between {low} and {high}"));
        }
        found
    }

    /// A text that some type reads.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Option<T> {
        let text = self.text(key)?;
        text.parse().map_err(|error| self.problem(key, format!("\"{text}\": {error}"))).ok()
    }

    /// One of some words.
    pub(super) fn word<T: Clone>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        self.one_of(key, &text, words)
    }

    /// The same of a text that has been read.
    pub(super) fn one_of<T: Clone>(
        &self,
        key: &'static str,
        text: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let hint = hints::value(text, all.iter().copied());
            let all = all.join(", ");
            self.problem(key, format!("\"{text}\" is not one of {all}{hint}"));
        }
        found
    }

    /// A list of texts that some type reads, each with its place; `None` if one cannot be read, so
    /// that what is missing from it is not reported a second time.
    pub(super) fn list<T: FromStr<Err: fmt::Display>>(
        &self,
        key: &'static str,
    ) -> Option<Vec<(T, Place)>> {
        let node = self.take(key)?;
        let Value::List(items) = &node.value else {
            self.mistyped(key, node, "a list of texts");
            return None;
        };
        let mut list = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let path = format!("{key}[{number}]");
            match &item.value {
                Value::Text(text) => match text.parse() {
                    Ok(value) => list.push((value, item.place.clone())),
                    Err(error) => self.reader.problem(
                        &item.place,
                        &self.path_of(&path),
                        format!("\"{text}\": {error}"),
                    ),
                },
                _ => self.mistyped(&path, item, "a text"),
            }
        }
        (list.len() == items.len()).then_some(list)
    }

    /// A table inside this one; empty if it is not there.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let node = self.take(key);
        if let Some(node) = node
            && !matches!(node.value, Value::Table(_))
        {
            self.mistyped(key, node, "a table");
        }
        Section { reader: self.reader, path: self.path_of(key), node, asked: RefCell::default() }
    }

    /// A list of tables, `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.mistyped(key, node, &format!("a list of tables, each beginning with [[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let path = self.path_of(&format!("{key}[{number}]"));
            if !matches!(item.value, Value::Table(_)) {
                self.mistyped(&format!("{key}[{number}]"), item, "a table");
                continue;
            }
            let asked = RefCell::default();
            sections.push(Section { reader: self.reader, path, node: Some(item), asked });
        }
        sections
    }

    /// Says that another reader of the same table asks for this key.
    pub(super) fn allow(&self, key: &'static str) {
        self.asked.borrow_mut().insert(key);
    }

    /// Notes every key that nothing asked for.
    pub(super) fn finish(&self) {
        let Some(Node { value: Value::Table(table), .. }) = self.node else { return };
        let asked = self.asked.borrow();
        for key in table.keys().filter(|key| !asked.contains(key.as_str())) {
            self.problem(key, format!("unknown key{}", hints::unknown_key(key, &asked)));
        }
    }
}

/// A path in a file means a place relative to that file.
pub(super) fn relative_to(file: &Path, path: String) -> std::path::PathBuf {
    file.parent().unwrap_or(Path::new(".")).join(path)
}

/// A file as a tree; its syntax errors are noted.
pub(super) fn read_file(path: &Path, reader: &Reader) -> Option<Node> {
    let text = files::read_regular_text(path)
        .map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "; is it another file, or in another folder?",
                std::io::ErrorKind::PermissionDenied => {
                    "; run this as root or as the daemon's user"
                }
                std::io::ErrorKind::InvalidData => "; save it as UTF-8",
                std::io::ErrorKind::IsADirectory => "; name the file in it",
                _ => "",
            };
            reader.problem(path.display(), "", format!("cannot be read: {error}{hint}"));
        })
        .ok()?;
    Some(read_text(path, &text, reader))
}

/// The text of the file at `path`; the path is for messages.
pub(super) fn read_text(path: &Path, text: &str, reader: &Reader) -> Node {
    let (node, errors) = tree::parse(path, text);
    for error in &errors {
        let place = format!("{}:{}", path.display(), error.line);
        let hint = error.hint.as_ref().map(|hint| format!("; {hint}"));
        reader.problem(place, "", format!("{}{}", error.message, hint.unwrap_or_default()));
    }
    node
}
