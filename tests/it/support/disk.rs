//! A disk that loses power: what recorded system calls leave on it when nothing is certain but
//! what was synced.
//!
//! Of each file's writes since its last sync, any may be there or not, whole or in part. Names
//! that were made, changed or removed last until a sync of their folder only as a prefix of what
//! was done, which is what a journalling file system promises.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::strace::Call;

/// Writes are torn at multiples of this, which is a disk's smallest unit.
const SECTOR: usize = 512;

/// Numbers that look random and are the same each time (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn throw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { call: usize, at: usize, bytes: Vec<u8> },
    Truncate { call: usize, length: usize },
}

impl Change {
    fn call(&self) -> usize {
        match self {
            Self::Write { call, .. } | Self::Truncate { call, .. } => *call,
        }
    }

    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes, .. } => {
                let end = at + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Truncate { length, .. } => content.resize(*length, 0),
        }
    }
}

/// A file's content, whatever its name.
#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
    length: usize,
}

#[derive(Clone, Debug)]
struct Naming {
    call: usize,
    path: PathBuf,
    inode: Option<usize>,
}

/// The files below one folder, as calls go by.
pub struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    names: HashMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<Naming>,
}

impl Disk {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            inodes: Vec::new(),
            names: HashMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
        }
    }

    /// The next call of the recording, which is its `number`th.
    pub fn see(&mut self, number: usize, call: &Call) {
        match call {
            Call::Open { path, creates, truncates } if self.is_ours(path) => {
                if *creates && !self.names.contains_key(path) {
                    self.inodes.push(Inode::default());
                    self.name(number, path, Some(self.inodes.len() - 1));
                } else if *truncates {
                    self.change(path, |_| Change::Truncate { call: number, length: 0 });
                }
            }
            Call::Write { path, at, bytes } => self.change(path, |length| Change::Write {
                call: number,
                at: at.map_or(length, |at| at as usize),
                bytes: bytes.clone(),
            }),
            Call::Truncate { path, length } => {
                let length = *length as usize;
                self.change(path, |_| Change::Truncate { call: number, length });
            }
            Call::Sync { path, began } => self.sync(path, *began),
            Call::Rename { from, to } if self.is_ours(to) => {
                let inode = self.names.get(from).copied();
                self.name(number, to, inode);
                self.name(number, from, None);
            }
            Call::Remove { path } if self.is_ours(path) => self.name(number, path, None),
            _ => {}
        }
    }

    fn is_ours(&self, path: &Path) -> bool {
        path.starts_with(&self.root)
    }

    fn name(&mut self, call: usize, path: &Path, inode: Option<usize>) {
        match inode {
            Some(inode) => self.names.insert(path.into(), inode),
            None => self.names.remove(path),
        };
        self.pending_names.push(Naming { call, path: path.into(), inode });
    }

    fn change(&mut self, path: &Path, change: impl FnOnce(usize) -> Change) {
        let Some(inode) = self.names.get(path) else { return };
        let inode = &mut self.inodes[*inode];
        let change = change(inode.length);
        inode.length = match &change {
            Change::Write { at, bytes, .. } => inode.length.max(at + bytes.len()),
            Change::Truncate { length, .. } => *length,
        };
        inode.pending.push(change);
    }

    fn sync(&mut self, path: &Path, began: usize) {
        if let Some(inode) = self.names.get(path) {
            let Inode { durable, pending, .. } = &mut self.inodes[*inode];
            let synced = pending.iter().take_while(|change| change.call() < began).count();
            pending.drain(..synced).for_each(|change| change.apply(durable));
            return;
        }
        // A folder: all namings up to the last in it are durable, since they are kept in order.
        let is_in_it = |naming: &Naming| naming.call < began && naming.path.parent() == Some(path);
        let synced = self.pending_names.iter().rposition(is_in_it).map_or(0, |last| last + 1);
        let durable = self.pending_names.drain(..synced);
        durable.for_each(|naming| rename(&mut self.durable_names, naming));
    }

    /// Writes what the disk may hold after a power cut now to `target`, as a folder that
    /// `self.root` was.
    pub fn cut(&self, dice: &mut Dice, target: &Path) {
        let mut names = self.durable_names.clone();
        let kept = dice.throw(self.pending_names.len() as u64 + 1) as usize;
        self.pending_names[..kept].iter().for_each(|naming| rename(&mut names, naming.clone()));
        // Sometimes nothing that was not synced survives, sometimes all; mostly something.
        let mood = dice.throw(6);
        for (path, inode) in names {
            let mut content = self.inodes[inode].durable.clone();
            for change in &self.inodes[inode].pending {
                let luck = if mood < 2 { mood * 2 } else { dice.throw(3) };
                survive(change, luck, dice, &mut content);
            }
            let path = target.join(path.strip_prefix(&self.root).expect("below the root"));
            fs::create_dir_all(path.parent().expect("has a folder")).expect("creates");
            fs::write(path, content).expect("writes");
        }
    }
}

/// Nothing, a part or all of a change reaches the disk.
fn survive(change: &Change, luck: u64, dice: &mut Dice, content: &mut Vec<u8>) {
    match (change, luck) {
        (_, 0) => {}
        (Change::Write { call, at, bytes }, 1) => {
            let sectors = bytes.len().div_ceil(SECTOR) as u64;
            let from = dice.throw(sectors + 1) as usize * SECTOR;
            let part = &bytes[from.min(bytes.len())..];
            if !part.is_empty() {
                let part = Change::Write { call: *call, at: at + from, bytes: part.to_vec() };
                part.apply(content);
            }
        }
        _ => change.apply(content),
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, naming: Naming) {
    match naming.inode {
        Some(inode) => names.insert(naming.path, inode),
        None => names.remove(&naming.path),
    };
}
