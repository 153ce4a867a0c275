//! Follows the event files as they grow and are rotated: every event once, in its order, however
//! often the file was rotated between two looks.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use super::dated::{leads_to, named};
use super::line::EventId;
use super::sink::{FilesAtOnce, files_at_once, id_of};

/// Where a follower has come to.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    /// The file that had the current name when it was opened, its path then, and how much of it
    /// has been read.
    open: Option<Open>,
    /// The last event that was told.
    last: Option<EventId>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    position: u64,
}

impl Follower {
    /// Follows the files of a folder from the first event after `last` on.
    pub fn after(dir: PathBuf, last: Option<EventId>) -> Self {
        Self { dir, open: None, last }
    }

    /// Tells each line that has come since the last look.
    ///
    /// # Errors
    /// Those of the file system, and of `tell`.
    pub fn look(&mut self, mut tell: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            open.read_on(&mut self.last, &mut tell)?;
            if leads_to(&open.path, &open.file)? {
                return Ok(());
            }
            // Its name leads elsewhere now, so nothing more is written to it: this is its end.
            open.read_on(&mut self.last, &mut tell)?;
        }
        let FilesAtOnce { rotated, current } = files_at_once(&self.dir)?;
        for mut open in self.unread(rotated)? {
            open.read_on(&mut self.last, &mut tell)?;
        }
        let Some((path, file)) = current else { return Ok(()) };
        let mut open = Open { path, file, position: 0 };
        open.read_on(&mut self.last, &mut tell)?;
        self.open = Some(open);
        Ok(())
    }

    /// The rotated files that have events after the last one that was told, oldest first.
    fn unread(&self, rotated: Vec<PathBuf>) -> io::Result<Vec<Open>> {
        let mut unread = Vec::new();
        for path in rotated.into_iter().rev() {
            let file = match File::open(&path) {
                // It was deleted since it was listed, and so were all older ones.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                file => file.map_err(|error| named(&path, error))?,
            };
            let mut open = Open { path, file, position: 0 };
            let is_begun = open.first()? <= self.last;
            unread.push(open);
            if is_begun && self.last.is_some() {
                break;
            }
        }
        unread.reverse();
        Ok(unread)
    }
}

impl Open {
    /// Tells whole lines from where reading ended, and passes over those told before.
    fn read_on(
        &mut self,
        last: &mut Option<EventId>,
        tell: &mut impl FnMut(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        // Somebody may have copied it and cut it to nothing.
        let length = self.file.metadata().map_err(|error| named(&self.path, error))?.len();
        if length < self.position {
            self.position = 0;
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            self.position += line.len() as u64;
            let id = id_of(&line);
            if id.is_some() && id > *last {
                tell(String::from_utf8_lossy(&line).trim_end())?;
                *last = id;
            }
            line.clear();
        }
        Ok(())
    }

    /// The file's first event.
    fn first(&mut self) -> io::Result<Option<EventId>> {
        let mut line = Vec::new();
        BufReader::new(&self.file).read_until(b'\n', &mut line)?;
        Ok(id_of(&line))
    }
}

#[cfg(test)]
mod tests;
