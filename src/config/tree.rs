//! Configuration values with their places, whether they came from a file or the environment.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use config::Source as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::hints;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file, on a line (from 1).
    File(Arc<Path>, usize),
    /// In an environment variable.
    Environment(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

impl Node {
    /// What each key says that stands outside of lists of tables, with its sections before it.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        self.add_texts("", &mut texts);
        texts
    }

    fn add_texts(&self, path: &str, texts: &mut BTreeMap<String, String>) {
        match &self.value {
            Value::Table(table) => {
                for (key, node) in table {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    node.add_texts(&path, texts);
                }
            }
            value => texts.extend(value.text().map(|text| (path.to_owned(), text))),
        }
    }
}

/// A value, as far as configuration uses TOML.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// Floats and dates: no key takes one.
    Other(&'static str),
}

impl Value {
    /// The value in words; `None` for tables and what has some.
    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(format!("{text:?}")),
            Self::Integer(number) => Some(number.to_string()),
            Self::Bool(value) => Some(value.to_string()),
            Self::List(items) => {
                let texts: Option<Vec<_>> = items.iter().map(|item| item.value.text()).collect();
                texts.map(|texts| texts.join(", "))
            }
            Self::Table(_) => None,
            Self::Other(kind) => Some((*kind).to_owned()),
        }
    }

    /// What was meant by a value of the wrong kind, as a file would say it.
    pub(super) fn meant(&self, key: &str, expected: &str) -> Option<String> {
        let text = self.text()?;
        match (self, expected) {
            (Self::Text(_), "a list of texts") => Some(format!("{key} = [{text}]")),
            (Self::Text(found), "a number") => {
                found.parse::<u64>().ok().map(|number| format!("{key} = {number}"))
            }
            (Self::Text(found), "true or false") => match found.to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(format!("{key} = true")),
                "false" | "no" | "off" | "0" => Some(format!("{key} = false")),
                _ => None,
            },
            (Self::Integer(1), "true or false") => Some(format!("{key} = true")),
            (Self::Integer(0), "true or false") => Some(format!("{key} = false")),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// A syntax error and the line it is on.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
    /// What to write instead.
    pub(super) hint: Option<String>,
}

/// Reads a file's text; what can be read is read even where there are syntax errors.
pub(super) fn parse(path: &Path, text: &str) -> (Node, Vec<SyntaxError>) {
    let path: Arc<Path> = path.into();
    let (table, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::of(text);
    let errors = errors
        .iter()
        .map(|error| SyntaxError {
            line: error.span().map_or(1, |span| lines.line_of(span.start)),
            message: error.message().to_owned(),
            hint: match error.message() {
                "duplicate key" => {
                    let key = error.span().and_then(|span| text.get(span)).unwrap_or("it");
                    Some(format!("{} stands further up already", key.trim()))
                }
                _ => error.span().and_then(|span| hints::syntax(lines.text_at(text, span.start))),
            },
        })
        .collect();
    let node = Converter { path, lines }.table(table.get_ref(), 0);
    (node, errors)
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    /// The line that has an octet.
    fn text_at<'t>(&self, text: &'t str, offset: usize) -> &'t str {
        text.lines().nth(self.line_of(offset).saturating_sub(1)).unwrap_or_default()
    }

    /// The line, from 1, of an octet.
    fn line_of(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

struct Converter {
    path: Arc<Path>,
    lines: Lines,
}

impl Converter {
    fn table(&self, table: &DeTable<'_>, offset: usize) -> Node {
        let entries = table.iter().map(|(key, value)| {
            let mut node = self.value(value);
            // A problem is told where its key stands, which for a long value is easier to find.
            if !matches!(node.value, Value::List(_) | Value::Table(_)) {
                node.place = self.place(key.span().start);
            }
            (key.get_ref().to_string(), node)
        });
        Node { value: Value::Table(entries.collect()), place: self.place(offset) }
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let start = value.span().start;
        let place = self.place(start);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                i64::from_str_radix(&digits, number.radix())
                    .map_or(Value::Other("a number that is too large"), Value::Integer)
            }
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| self.value(item)).collect())
            }
            DeValue::Table(table) => return self.table(table, start),
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Datetime(_) => Value::Other("a date"),
        };
        Node { value, place }
    }

    fn place(&self, offset: usize) -> Place {
        Place::File(Arc::clone(&self.path), self.lines.line_of(offset))
    }
}

/// Lays `MAILWEIR__SECTION__KEY` variables over a file's values.
pub(super) fn overlay(root: &mut Node, variables: HashMap<String, String>) -> Result<(), String> {
    const PREFIX: &str = "MAILWEIR";
    let variables: HashMap<_, _> =
        variables.into_iter().filter(|(name, _)| name.starts_with("MAILWEIR__")).collect();
    let environment = config::Environment::with_prefix(PREFIX)
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .source(Some(variables));
    for (key, value) in environment.collect().map_err(|error| error.to_string())? {
        let name = format!("{PREFIX}__{}", key.replace('.', "__").to_uppercase());
        let value = match value.kind {
            config::ValueKind::Boolean(value) => Value::Bool(value),
            config::ValueKind::I64(value) => Value::Integer(value),
            _ => Value::Text(value.to_string()),
        };
        insert(root, &key, Node { value, place: Place::Environment(name) });
    }
    Ok(())
}

fn insert(node: &mut Node, path: &str, value: Node) {
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    let Value::Table(table) = &mut node.value else {
        // Reported when the section that should be here is read.
        *node = value;
        return;
    };
    match rest {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some(rest) => {
            let place = value.place.clone();
            let section = table
                .entry(key.to_owned())
                .or_insert_with(|| Node { value: Value::Table(BTreeMap::new()), place });
            insert(section, rest, value);
        }
    }
}
