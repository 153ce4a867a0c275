//! What came from a peer cannot move the cursor, colour the screen, turn the direction of a line,
//! or hide in it.

use std::fmt::Write;
use std::path::Path;

/// Characters without a shape of their own, which make an address or file name look like another:
/// format characters, those that Unicode says to ignore, and blanks that are no spaces.
const INVISIBLE: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// A text as terminals may show it, in one line or several. What is escaped is written as JSON
/// writes it, so a line of JSON still says the same.
pub(super) fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    let mut before = None;
    for c in text.chars() {
        match c {
            '\n' => harmless.push(c),
            // They are escaped in JSON already.
            '\0'..='\x1f' => harmless.push('\u{fffd}'),
            _ if c.is_control() || (is_invisible(c) && !is_part_of_picture(before, c)) => {
                push_escaped(&mut harmless, c);
            }
            _ => harmless.push(c),
        }
        before = Some(c);
    }
    harmless
}

/// What a sender has written, for a place in a line of ours: an encoded word may have line ends in it
/// (RFC 2047 §5), and nobody else begins a line here.
pub(super) fn in_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A path as a shell takes it, in a command to be pasted: in quotes where it has more than what no
/// shell reads as anything else.
pub(super) fn for_shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn is_invisible(c: char) -> bool {
    INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// What joins two pictures to one, or says that a character is to be shown as a picture.
fn is_part_of_picture(before: Option<char>, c: char) -> bool {
    let is_picture = |before| matches!(before, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}');
    match c {
        '\u{fe0e}' | '\u{fe0f}' => before.is_some_and(is_picture),
        '\u{200d}' => before.is_some_and(|before| is_picture(before) || before == '\u{fe0f}'),
        _ => false,
    }
}

fn push_escaped(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a string cannot fail.
        write!(out, "\\u{unit:04x}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_pasted_as_it_is() {
        for (path, expected) in [
            ("/etc/mailweir/mailweir.toml", "/etc/mailweir/mailweir.toml"),
            ("/tmp/d e/m.toml", "'/tmp/d e/m.toml'"),
            ("/tmp/größe/m.toml", "/tmp/größe/m.toml"),
            ("it's $(x)", "'it'\\''s $(x)'"),
            ("~/m.toml", "'~/m.toml'"),
            ("", "''"),
        ] {
            assert_eq!(for_shell(Path::new(path)), expected, "{path}");
            let shell = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {expected}"))
                .output()
                .expect("runs");
            assert_eq!(String::from_utf8_lossy(&shell.stdout), path);
        }
    }

    #[test]
    fn what_turns_or_hides_is_escaped_and_what_is_written_is_not() {
        for (text, expected) in [
            ("plain, größer, 用户, עברית, عربي", "plain, größer, 用户, עברית, عربي"),
            ("two\nlines", "two\nlines"),
            ("\u{1b}[2J", "\u{fffd}[2J"),
            ("\u{9b}31m\u{7f}", "\\u009b31m\\u007f"),
            ("a\u{202e}gpj.exe", "a\\u202egpj.exe"),
            ("\u{2066}a\u{2069}\u{200f}", "\\u2066a\\u2069\\u200f"),
            ("ceo\u{200b}@exa\u{ad}mple.test", "ceo\\u200b@exa\\u00admple.test"),
            ("a\u{200d}b a\u{fe0f}", "a\\u200db a\\ufe0f"),
            ("tag\u{e0041}", "tag\\udb40\\udc41"),
            ("\u{feff}x\u{3164}\u{2028}", "\\ufeffx\\u3164\\u2028"),
            ("❤\u{fe0f} 👩\u{200d}💻", "❤\u{fe0f} 👩\u{200d}💻"),
        ] {
            assert_eq!(harmless(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_a_sender_writes_begins_no_line() {
        for (text, expected) in [
            ("plain, größer", "plain, größer"),
            ("one\r\ntwo\u{85}three\tfour\u{1b}", "one  two three four "),
        ] {
            assert_eq!(in_one_line(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_of_json_says_the_same_afterwards() {
        let value = serde_json::json!({ "subject": "a\u{202e}b\u{e0041}\u{9b}\u{1b}\n" });
        let shown = harmless(&value.to_string());
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
}
