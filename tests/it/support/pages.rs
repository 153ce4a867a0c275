//! The pages of the documentation, and the commands on them.

use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block of a page.
pub struct Block {
    pub language: String,
    pub text: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `README.md` and every page below `docs/`, by name.
pub fn pages() -> Vec<String> {
    let folder = fs::read_dir(root().join("docs")).expect("lists");
    let files = folder.map(|entry| entry.expect("an entry").path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "md");
    let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut pages: Vec<_> =
        files.filter(is_page).map(|path| format!("docs/{}", name(path))).collect();
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

pub fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fenced blocks of a page, in order.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in page.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, Some(language)) => {
                open = Some(Block { language: language.trim().to_owned(), text: String::new() });
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence has no end");
    blocks
}

/// The commands of a block: a line each, with what a backslash continues, without comments.
pub fn commands(block: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut begun = String::new();
    for line in block.lines() {
        let line = without_comment(line);
        assert!(!line.contains("<<"), "here-documents are not read: {line}");
        match line.strip_suffix('\\') {
            Some(part) => begun += &format!("{} ", part.trim()),
            None => {
                let command = format!("{begun}{}", line.trim());
                begun.clear();
                if !command.is_empty() {
                    commands.push(command);
                }
            }
        }
    }
    assert!(begun.is_empty(), "a block ends in a backslash");
    commands
}

fn without_comment(line: &str) -> &str {
    let comment = line.match_indices('#').find(|(at, _)| {
        let before = &line[..*at];
        before.ends_with([' ', '\t']) || before.is_empty()
    });
    comment.map_or(line, |(at, _)| &line[..at]).trim_end()
}

/// The spans of code in a page's prose.
pub fn spans(page: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut is_fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            prose += line;
            prose.push('\n');
        }
    }
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A text as it is compared: what is new in every run (ids, times, sizes, ports) has a word that
/// stands for it.
pub fn normalized(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
    let mut words: Vec<String> = Vec::new();
    for c in text.chars() {
        match words.last_mut() {
            // A colon is within a time or a port, never before one.
            Some(last) if is_word(c) && last.ends_with(is_word) && last != ":" => last.push(c),
            _ => words.push(c.into()),
        }
    }
    for at in 0..words.len() {
        let bare = words[at].trim_end_matches(['.', ':']);
        let end = words[at][bare.len()..].to_owned();
        words[at] = placeholder(bare) + &end;
        let is_size = matches!(words.get(at + 2).map(String::as_str), Some("bytes" | "octets"));
        if is_size && words[at].bytes().all(|b| b.is_ascii_digit()) {
            words[at] = "SIZE".into();
        }
        if at >= 2 && matches!(words[at - 2].as_str(), "id" | "size") && words[at - 1] == "=" {
            words[at] = "VALUE".into();
        }
        if at >= 2 && words[at - 2] == "MESSAGE" && words[at - 1] == "@" {
            words[at] = "HOST".into();
        }
    }
    words.concat()
}

fn placeholder(word: &str) -> String {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = word.split('-').collect();
    let is_uuid =
        parts.len() == 5 && word.len() == 36 && parts.iter().all(|it| is_hex(it, it.len()));
    let is_event_id = parts.len() == 2 && is_hex(parts[0], 16) && is_hex(parts[1], 4);
    let is_date = parts.len() >= 3 && is_digits(parts[0]) && parts[0].len() == 4;
    if is_uuid {
        return "ID".into();
    }
    if is_event_id {
        return "EVENT".into();
    }
    if is_date && is_digits(parts[1]) && parts[1].len() == 2 {
        return "TIME".into();
    }
    if word.strip_prefix("m-").is_some_and(|rest| is_hex(rest, 32)) {
        return "ORGANIZATION".into();
    }
    // The Message-ID that swaks makes.
    if word
        .split_once('.')
        .is_some_and(|(day, rest)| day.len() == 14 && is_digits(day) && is_digits(rest))
    {
        return "MESSAGE".into();
    }
    if let Some((address, port)) = word.split_once(':')
        && address.starts_with("127.0.0.")
        && is_digits(port)
    {
        return format!("{address}:PORT");
    }
    if is_digits(word) && word.len() >= 13 { "MILLISECONDS".into() } else { word.into() }
}
