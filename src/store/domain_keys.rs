//! Private keys of mail domains, each in a file of its own below `keys/dkim`, sealed under the
//! master key with its selector and domain as associated data. What is inside is not this room's
//! business.
//!
//! A file never changes: a key is written under another name, synced and renamed. So the names
//! alone tell whether anything is new.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::keys::MasterKey;
use super::layout::Layout;
use super::{Settings, StoreError, durable};
use crate::clock::Timestamp;
use crate::mail::Domain;

/// Marks a key that is not in use yet. No domain contains an underscore.
const NEXT: &str = "_next";
/// A file that is being written.
const UNFINISHED: &str = "unfinished";
const LOCK: &str = "lock";

/// Names a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainKeyName {
    /// Whose it is.
    pub domain: Domain,
    /// The selector (RFC 6376 §3.1), without a dot.
    pub selector: String,
    /// Whether it is waiting to be used.
    pub is_next: bool,
}

impl DomainKeyName {
    fn file_name(&self) -> String {
        let mark = if self.is_next { NEXT } else { "" };
        format!("{}.{}{mark}", self.selector, self.domain)
    }

    fn parse(file_name: &str) -> Option<Self> {
        let (name, is_next) = match file_name.strip_suffix(NEXT) {
            Some(name) => (name, true),
            None => (file_name, false),
        };
        let (selector, domain) = name.split_once('.')?;
        let domain = Domain::parse(domain).ok().filter(|_| !selector.is_empty())?;
        let name = Self { domain, selector: selector.to_owned(), is_next };
        (name.file_name() == file_name).then_some(name)
    }

    /// What a sealed key belongs to, whether it is in use or not.
    fn context(&self) -> Vec<u8> {
        format!("dkim {}._domainkey.{}", self.selector, self.domain).into_bytes()
    }
}

/// The files of a data folder that hold such keys, by the keys' names, sorted. This needs no master
/// key, and opens none of them.
///
/// # Errors
/// A folder that cannot be read.
pub fn domain_key_files(settings: &Settings) -> Result<Vec<DomainKeyFile>, StoreError> {
    let dir = Layout(settings).domain_keys();
    let mut files = Vec::new();
    for name in names_in(&dir)? {
        let path = dir.join(name.file_name());
        files.push(DomainKeyFile { name, path });
    }
    Ok(files)
}

/// A file that holds such a key.
#[derive(Debug)]
pub struct DomainKeyFile {
    /// The key's name.
    pub name: DomainKeyName,
    /// Where it is.
    pub path: PathBuf,
}

impl DomainKeyFile {
    /// When the key was made, as far as the file says so: it is written once, and only renamed when
    /// the key is taken into use.
    pub fn made_at(&self) -> Option<Timestamp> {
        let seconds = fs::metadata(&self.path).ok()?.mtime();
        u64::try_from(seconds).ok().map(|seconds| Timestamp::from_millis(seconds * 1000))
    }
}

fn names_in(dir: &Path) -> Result<Vec<DomainKeyName>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::file(dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::file(dir))?.file_name();
        names.extend(name.to_str().and_then(DomainKeyName::parse));
    }
    names.sort();
    Ok(names)
}

/// The folder of these keys.
#[derive(Debug)]
pub struct DomainKeyFolder {
    settings: Settings,
    dir: PathBuf,
    master: MasterKey,
}

impl DomainKeyFolder {
    /// The folder of a data folder, which need not have one yet.
    ///
    /// # Errors
    /// A master key that cannot be read, or, for a data folder that has none yet, made.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let layout = Layout(settings);
        let master = layout.master()?;
        Ok(Self { settings: settings.clone(), dir: layout.domain_keys(), master })
    }

    /// The same where a master key is there already; none is made.
    ///
    /// # Errors
    /// A master key that is not there, cannot be read or is another folder's.
    pub fn open_known(settings: &Settings) -> Result<Self, StoreError> {
        let layout = Layout(settings);
        let master = layout.known_master()?;
        Ok(Self { settings: settings.clone(), dir: layout.domain_keys(), master })
    }

    /// The names of all keys, sorted.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn list(&self) -> Result<Vec<DomainKeyName>, StoreError> {
        names_in(&self.dir)
    }

    /// Opens a key.
    ///
    /// # Errors
    /// [`StoreError::Key`] if it is not what was sealed under this master key and name.
    pub fn read(&self, name: &DomainKeyName) -> Result<Vec<u8>, StoreError> {
        let path = self.dir.join(name.file_name());
        let sealed = fs::read_to_string(&path).map_err(StoreError::file(&path))?;
        self.master.domain_keys().open_secret(sealed.trim(), &name.context()).map_err(|_| {
            let path = path.display();
            StoreError::Key(format!("{path} does not open with this master key"))
        })
    }

    /// Keeps others from changing the folder for as long as the answer lives.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another command changes it this moment.
    pub fn lock(&self) -> Result<File, StoreError> {
        durable::create_dir_below(&self.settings.data_dir, &self.dir)?;
        let path = self.dir.join(LOCK);
        let file = durable::open_lock(&path).map_err(StoreError::file(&path))?;
        // Else the daemon could not lock what root's command made.
        durable::own_like(&path, &self.settings.data_dir)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked(self.dir.clone())),
            Err(fs::TryLockError::Error(error)) => Err(StoreError::file(path)(error)),
        }
    }

    /// Keeps a new key, durably. To be called under [`DomainKeyFolder::lock`].
    ///
    /// # Errors
    /// [`StoreError::InTheWay`] if there is a key of this name.
    pub fn add(&self, name: &DomainKeyName, secret: &[u8]) -> Result<(), StoreError> {
        let path = self.dir.join(name.file_name());
        if durable::is_there(&path)? {
            return Err(StoreError::InTheWay(path));
        }
        Layout(&self.settings).bind_to(&self.master)?;
        let sealed = self.master.domain_keys().seal_secret(secret, &name.context())? + "\n";
        let unfinished = self.dir.join(UNFINISHED);
        durable::remove_if_there(&unfinished)?;
        durable::create_file(&unfinished, sealed.as_bytes())?;
        durable::own_like(&unfinished, &self.settings.data_dir)?;
        durable::rename(&unfinished, &path)
    }

    /// Marks a waiting key as one in use, durably. To be called under [`DomainKeyFolder::lock`].
    ///
    /// # Errors
    /// There is no such key.
    pub fn use_next(&self, name: &DomainKeyName) -> Result<(), StoreError> {
        let in_use = DomainKeyName { is_next: false, ..name.clone() };
        let waiting = DomainKeyName { is_next: true, ..name.clone() };
        durable::rename(&self.dir.join(waiting.file_name()), &self.dir.join(in_use.file_name()))
    }

    /// Removes a key. To be called under [`DomainKeyFolder::lock`].
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(&self, name: &DomainKeyName) -> Result<(), StoreError> {
        durable::remove_if_there(&self.dir.join(name.file_name()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::backup;
    use crate::store::fsck::{self, Depth};

    fn name(text: &str) -> DomainKeyName {
        DomainKeyName::parse(text).expect("a name")
    }

    fn scratch() -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = Settings::new(dir.path().join("data"));
        (dir, settings)
    }

    #[test]
    fn names_are_the_names_of_files() {
        let next = name("mw2e.mail.example.test_next");
        assert_eq!((&*next.selector, next.domain.as_str()), ("mw2e", "mail.example.test"));
        assert!(next.is_next && !name("mw2e.example.test").is_next);
        for other in ["lock", "unfinished", "mw1e", "mw1e.Example.test", ".test", "mw1e.a b.test"] {
            assert_eq!(DomainKeyName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_key_opens_under_its_name_and_master_key_only() {
        let (_dir, settings) = scratch();
        let folder = DomainKeyFolder::open(&settings).expect("opens");
        assert_eq!(folder.list().expect("lists"), []);
        let _lock = folder.lock().expect("locks");
        assert!(matches!(folder.lock(), Err(StoreError::Locked(_))));
        let (ours, next) = (name("mw1e.example.test"), name("mw2e.example.test_next"));
        folder.add(&ours, b"a private key").expect("adds");
        folder.add(&next, b"another").expect("adds");
        assert!(matches!(folder.add(&ours, b"x"), Err(StoreError::InTheWay(_))));
        assert_eq!(folder.list().expect("lists"), [ours.clone(), next.clone()]);
        assert_eq!(folder.read(&ours).expect("opens"), b"a private key");

        let file = settings.data_dir.join("keys/dkim/mw1e.example.test");
        let sealed = fs::read(&file).expect("reads");
        assert!(memchr::memmem::find(&sealed, b"private").is_none());
        let mode = fs::metadata(&file).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::copy(&file, settings.data_dir.join("keys/dkim/mw1e.other.test")).expect("copies");
        let error = folder.read(&name("mw1e.other.test")).expect_err("is another's").to_string();
        assert!(error.ends_with("mw1e.other.test does not open with this master key"), "{error}");
        let master = settings.data_dir.join("keys/master.key");
        fs::remove_file(&master).expect("removes");
        let error = DomainKeyFolder::open(&settings).expect_err("makes no other").to_string();
        assert!(error.contains("there is no such file; put the master key there"), "{error}");
        fs::write(&master, "0".repeat(64)).expect("writes");
        let error = DomainKeyFolder::open(&settings).expect_err("is another").to_string();
        assert!(error.contains("is not the key that this data folder is sealed with"), "{error}");
    }

    /// Only root can give files away; others make their own.
    #[test]
    fn what_root_makes_is_the_daemons() {
        let (_dir, settings) = scratch();
        fs::create_dir(&settings.data_dir).expect("creates");
        let is_root = std::os::unix::fs::chown(&settings.data_dir, Some(12_345), Some(12_345));
        let folder = DomainKeyFolder::open(&settings).expect("opens");
        let _lock = folder.lock().expect("locks");
        folder.add(&name("mw1e.example.test"), b"a key").expect("adds");
        let made = ["keys", "keys/master.key", "keys/dkim", "keys/dkim/lock"];
        for path in made.into_iter().chain(["keys/dkim/mw1e.example.test"]) {
            let metadata = fs::metadata(settings.data_dir.join(path)).expect("is there");
            assert!(is_root.is_err() || metadata.uid() == 12_345, "{path}");
        }
    }

    #[test]
    fn a_waiting_key_comes_into_use_as_it_is() {
        let (_dir, settings) = scratch();
        let folder = DomainKeyFolder::open(&settings).expect("opens");
        let _lock = folder.lock().expect("locks");
        let next = name("mw2e.example.test_next");
        folder.add(&next, b"a key").expect("adds");
        folder.use_next(&next).expect("renames");
        let used = name("mw2e.example.test");
        assert_eq!(folder.list().expect("lists"), std::slice::from_ref(&used));
        assert_eq!(folder.read(&used).expect("opens"), b"a key");
        assert!(folder.use_next(&next).is_err());
        folder.remove(&used).expect("removes");
        assert_eq!(folder.list().expect("lists"), []);
    }

    #[test]
    fn what_a_crash_left_of_a_key_is_not_in_the_way() {
        let (_dir, settings) = scratch();
        let folder = DomainKeyFolder::open(&settings).expect("opens");
        let _lock = folder.lock().expect("locks");
        fs::write(settings.data_dir.join("keys/dkim/unfinished"), "half").expect("writes");
        assert_eq!(folder.list().expect("lists"), []);
        folder.add(&name("mw1e.example.test"), b"a key").expect("adds");
        assert_eq!(folder.list().expect("lists").len(), 1);
    }

    #[test]
    fn a_backup_carries_the_keys_and_a_check_opens_them() {
        let (dir, settings) = scratch();
        let events = crate::events::Settings::default();
        crate::store::Store::open(&settings, &events).expect("opens").close();
        let folder = DomainKeyFolder::open(&settings).expect("opens");
        let lock = folder.lock().expect("locks");
        let key = name("mw1e.example.test");
        folder.add(&key, b"a key").expect("adds");
        drop(lock);
        let report = fsck::check(&settings, &crate::events::Settings::default(), Depth::Records)
            .expect("checks");
        assert!(report.is_sound(), "{report:?}");
        assert_eq!(report.domain_keys, 1);

        let copy = dir.path().join("copy");
        backup::backup(&settings, &copy).expect("copies");
        let restored = Settings::new(dir.path().join("restored"));
        backup::restore(&copy, &restored).expect("restores");
        let master = "keys/master.key";
        fs::copy(settings.data_dir.join(master), restored.data_dir.join(master)).expect("copies");
        let folder = DomainKeyFolder::open(&restored).expect("opens");
        assert_eq!(folder.read(&key).expect("opens"), b"a key");

        fs::write(restored.data_dir.join("keys/dkim/mw1e.example.test"), "00\n").expect("writes");
        let report = fsck::check(&restored, &crate::events::Settings::default(), Depth::Records)
            .expect("checks");
        let problem = "mw1e.example.test does not open with this master key";
        assert!(report.problems[0].ends_with(problem), "{report:?}");
    }
}
