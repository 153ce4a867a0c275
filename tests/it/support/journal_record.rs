//! A reader of journal records, written from the description of the format alone (`contracts.md`
//! §6, [MS-XJRNL] §2.1.4.1), as an archive without a MIME library would. It shares nothing with the
//! code that writes them.

/// What a record tells.
#[derive(Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// The outer header section's fields, unfolded, in order.
    pub head: Vec<(String, String)>,
    /// `Sender`
    pub sender: String,
    /// `On-Behalf-Of`
    pub on_behalf_of: Option<String>,
    /// `Subject`
    pub subject: String,
    /// `Message-Id`
    pub message_id: String,
    /// The recipient lines.
    pub recipients: Vec<Recipient>,
    /// The message, unaltered.
    pub original: Vec<u8>,
}

/// A recipient line.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipient {
    /// `To`, `Cc`, `Bcc` or `Recipient`.
    pub word: String,
    /// Who got it.
    pub address: String,
    /// `, Expanded: …`
    pub expanded: Option<String>,
    /// `, Forwarded: …`
    pub forwarded: Option<String>,
}

/// Reads a record; says what is wrong with one that is none.
pub fn read(record: &[u8]) -> Result<JournalRecord, String> {
    let (head, body) = split(record, b"\r\n\r\n").ok_or("no header section")?;
    let head = fields(head)?;
    // Archives compare both marker fields as they are spelt, at the start of a line.
    require(&head, "X-MS-Journal-Report", "")?;
    require(&head, "X-WM-Journal-Report", "journal")?;
    let kind = value(&head, "Content-Type").ok_or("no Content-Type")?;
    let boundary =
        kind.strip_prefix("multipart/mixed;").and_then(parameter).ok_or("no boundary")?;
    let delimiter = format!("--{boundary}\r\n");
    let (_, rest) = split(body, delimiter.as_bytes()).ok_or("no report part")?;
    let (report, rest) =
        split(rest, format!("\r\n{delimiter}").as_bytes()).ok_or("no message part")?;
    let end = format!("\r\n--{boundary}--");
    let (message, after) = split(rest, end.as_bytes()).ok_or("no end")?;
    if !after.iter().all(u8::is_ascii_whitespace) {
        return Err("something follows the end".into());
    }
    let (kind, original) = split(message, b"\r\n\r\n").ok_or("no message")?;
    // Old archives fail where another field follows.
    if kind != b"Content-Type: message/rfc822" {
        return Err(format!("a message of type {}", String::from_utf8_lossy(kind)));
    }
    read_report(head, report, original.to_vec())
}

fn read_report(
    head: Vec<(String, String)>,
    part: &[u8],
    original: Vec<u8>,
) -> Result<JournalRecord, String> {
    let (kind, report) = split(part, b"\r\n\r\n").ok_or("the report has no header section")?;
    let kind = fields(kind)?;
    match value(&kind, "Content-Type") {
        Some(text) if text.starts_with("text/plain") => {}
        other => return Err(format!("a report of type {other:?}")),
    }
    let report = std::str::from_utf8(report).map_err(|error| error.to_string())?;
    let mut lines = report.trim_end_matches("\r\n").split("\r\n").peekable();
    let sender = expect(lines.next(), "Sender")?;
    let on_behalf_of = lines.next_if(|line| line.starts_with("On-Behalf-Of: "));
    let on_behalf_of = on_behalf_of.map(|line| expect(Some(line), "On-Behalf-Of")).transpose()?;
    let subject = expect(lines.next(), "Subject")?;
    let message_id = expect(lines.next(), "Message-Id")?;
    let recipients = lines.map(recipient).collect::<Result<Vec<_>, _>>()?;
    Ok(JournalRecord { head, sender, on_behalf_of, subject, message_id, recipients, original })
}

fn recipient(line: &str) -> Result<Recipient, String> {
    let (word, rest) = line.split_once(": ").ok_or_else(|| format!("no recipient: {line:?}"))?;
    if !["To", "Cc", "Bcc", "Recipient"].contains(&word) {
        return Err(format!("no word for a recipient: {word:?}"));
    }
    let (rest, forwarded) = optional(rest, ", Forwarded: ");
    let (address, expanded) = optional(rest, ", Expanded: ");
    if !address.contains('@') {
        return Err(format!("no address: {line:?}"));
    }
    Ok(Recipient { word: word.into(), address: address.into(), expanded, forwarded })
}

fn optional<'a>(text: &'a str, mark: &str) -> (&'a str, Option<String>) {
    match text.rsplit_once(mark) {
        Some((before, after)) => (before, Some(after.to_owned())),
        None => (text, None),
    }
}

fn expect(line: Option<&str>, name: &str) -> Result<String, String> {
    let line = line.ok_or_else(|| format!("no {name}"))?;
    let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
    value.map(str::to_owned).ok_or_else(|| format!("{line:?} is not {name}"))
}

fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

fn fields(section: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = String::from_utf8_lossy(section).replace("\r\n ", " ").replace("\r\n\t", " ");
    text.split("\r\n")
        .map(|line| {
            let (name, value) =
                line.split_once(':').ok_or_else(|| format!("no field: {line:?}"))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        })
        .collect()
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|(found, _)| found == name);
    field.map(|(_, value)| value.as_str())
}

fn require(head: &[(String, String)], name: &str, expected: &str) -> Result<(), String> {
    match value(head, name) {
        Some(found) if found == expected => Ok(()),
        other => Err(format!("{name} is {other:?}")),
    }
}

fn parameter(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix("boundary=\"")?.strip_suffix('"')
}
