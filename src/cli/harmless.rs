//! What came from a peer cannot move the cursor, colour the screen, turn the direction of a line,
//! or hide in it.

use std::fmt::Write;
use std::path::Path;

use crate::mail::disguises;

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
            _ if c.is_control() || disguises(before, c) => push_escaped(&mut harmless, c),
            _ => harmless.push(c),
        }
        before = Some(c);
    }
    harmless
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
    fn a_line_of_json_says_the_same_afterwards() {
        let value = serde_json::json!({ "subject": "a\u{202e}b\u{e0041}\u{9b}\u{1b}\n" });
        let shown = harmless(&value.to_string());
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
}
