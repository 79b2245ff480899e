//! A machine's files, read with bounds: nothing here follows a link out of its root, waits, or grows with what it reads.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// The most that is read of a file, whatever it says its size is.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// The most names that are taken from a directory.
const NAMES_MAX: usize = 4096;
/// What is read of the list of the kernel's symbols, which has about 10 MiB.
const SYMBOLS_BYTES_MAX: u64 = 64 << 20;

/// Environment variables, by name.
type Variables = Box<dyn Fn(&str) -> Option<OsString>>;

/// A machine as it is looked at: files below a root, environment variables, the processor's family.
///
/// [`this`](Self::this) is the machine that runs; [`at`](Self::at) makes one up of a directory.
pub struct Machine {
    root: PathBuf,
    variable: Variables,
    pub(crate) architecture: String,
}

impl Machine {
    /// The machine that this runs on.
    pub fn this() -> Self {
        Self::at("/".into(), std::env::consts::ARCH, |name| std::env::var_os(name))
    }

    /// One whose files lie below `root`, for an architecture as [`std::env::consts::ARCH`] names it, with the environment
    /// variables that `variable` gives.
    pub fn at(root: PathBuf, architecture: &str, variable: impl Fn(&str) -> Option<OsString> + 'static) -> Self {
        Self { root, variable: Box::new(variable), architecture: architecture.to_owned() }
    }

    /// An environment variable.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        (self.variable)(name)
    }

    /// An environment variable as cuFile reads a truth from it.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        let value = self.variable(name)?;
        let is = |word: &str| value.eq_ignore_ascii_case(word);
        match (is("true") || is("1"), is("false") || is("0")) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// The start of a file as text; what is no UTF-8 is replaced.
    pub fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(path, TEXT_BYTES_MAX)?).into_owned())
    }

    /// The text of a file of one word; none if there is no such file.
    pub fn word(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(self.text(path).ok()?.trim().to_owned())
    }

    /// The first bytes of a file.
    pub(crate) fn bytes(&self, path: impl AsRef<Path>, len_bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path.as_ref())?.take(len_bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether the running kernel has one of these symbols; none where it does not list any.
    pub(crate) fn has_symbol(&self, names: &[&str]) -> Option<bool> {
        let mut file = self.open("/proc/kallsyms".as_ref()).ok()?.take(SYMBOLS_BYTES_MAX);
        let mut buffer = vec![0; 1 << 18];
        // What is left of a line whose end was not read yet.
        let (mut held, mut any) = (0, false);
        loop {
            let read = file.read(&mut buffer[held..]).ok()?;
            let filled = held + read;
            any |= read > 0;
            let whole = match memchr::memrchr(b'\n', &buffer[..filled]) {
                Some(end) if read > 0 => end + 1,
                // The last line, or one that is no symbol's since it fills the buffer.
                _ => filled,
            };
            let named = |line: &[u8]| {
                let name = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty()).nth(2);
                name.is_some_and(|name| names.iter().any(|wanted| wanted.as_bytes() == name))
            };
            if buffer[..whole].split(|byte| *byte == b'\n').any(named) {
                return Some(true);
            }
            if read == 0 {
                return any.then_some(false);
            }
            buffer.copy_within(whole..filled, 0);
            held = filled - whole;
        }
    }

    /// The names in a directory, in order; none where it cannot be listed.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.place(path.as_ref())) else { return Vec::new() };
        let entries = entries.take(NAMES_MAX).flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Whether there is something of this name.
    pub(crate) fn exists(&self, path: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.place(path.as_ref())).is_ok()
    }

    /// Whether there is a directory of this name.
    pub(crate) fn is_dir(&self, path: impl AsRef<Path>) -> bool {
        fs::metadata(self.place(path.as_ref())).is_ok_and(|file| file.is_dir())
    }

    /// Where a link leads, by its text alone, as the links of sysfs are made: one step, never out of the root.
    pub(crate) fn link(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = path.as_ref();
        let target = fs::read_link(self.place(path)).ok()?;
        let mut resolved = if target.is_absolute() { PathBuf::from("/") } else { path.parent()?.to_owned() };
        for component in target.components() {
            match component {
                Component::Normal(name) => resolved.push(name),
                // `pop` stays at the root.
                Component::ParentDir => _ = resolved.pop(),
                _ => {}
            }
        }
        Some(resolved)
    }

    /// Opens a regular file, without waiting where it is a pipe or a device instead.
    fn open(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(self.place(path))?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file")),
        }
    }

    fn place(&self, path: &Path) -> PathBuf {
        let below = path.components().filter(|component| matches!(component, Component::Normal(_)));
        self.root.join(below.collect::<PathBuf>())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_read_with_bounds_and_links_stay_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::at(root.path().to_owned(), "x86_64", |name| (name == "YES").then(|| "True".into()));
        fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        fs::write(root.path().join("large"), vec![b'a'; (TEXT_BYTES_MAX + 10) as usize]).unwrap();
        assert_eq!(machine.text("/large").unwrap().len() as u64, TEXT_BYTES_MAX);
        symlink("../../devices/pci0000:00/nvme0n1", root.path().join("sys/dev/block/259:0")).unwrap();
        assert_eq!(machine.link("/sys/dev/block/259:0").unwrap(), Path::new("/sys/devices/pci0000:00/nvme0n1"));
        symlink("../../../../../../../etc/passwd", root.path().join("sys/dev/block/1:1")).unwrap();
        assert_eq!(machine.link("/sys/dev/block/1:1").unwrap(), Path::new("/etc/passwd"));
        assert!(machine.text("/etc/passwd").is_err(), "below the root there is none");
        assert!(machine.text("/../../etc/passwd").is_err());
        symlink("loop", root.path().join("loop")).unwrap();
        assert!(machine.text("/loop").is_err() && machine.names("/loop").is_empty() && !machine.is_dir("/loop"));
        nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(machine.text("/pipe").is_err(), "a pipe is not waited for");
        assert!(machine.text("/sys").is_err());
        assert_eq!((machine.flag("YES"), machine.flag("NO")), (Some(true), None));
    }

    #[test]
    fn a_symbol_is_found_by_its_whole_name_wherever_it_stands() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::at(root.path().to_owned(), "x86_64", |_| None);
        assert_eq!(machine.has_symbol(&["wanted"]), None);
        fs::create_dir(root.path().join("proc")).unwrap();
        let lines = |count: usize| "0000000000000000 t some_symbol_of_the_kernel\t[module]\n".repeat(count);
        let write = |text: &str| fs::write(root.path().join("proc/kallsyms"), text).unwrap();
        write(&lines(20_000));
        assert_eq!(machine.has_symbol(&["wanted", "symbol"]), Some(false));
        for before in [0, 5041, 5042, 20_000] {
            write(&(lines(before) + "0000000000000000 d wanted\n" + &lines(10)));
            assert_eq!(machine.has_symbol(&["wanted"]), Some(true), "behind {before} lines");
        }
        write(&(lines(9) + "0000000000000000 d wanted"));
        assert_eq!(machine.has_symbol(&["wanted"]), Some(true), "the last line has no end");
        write(&"x".repeat(1 << 20));
        assert_eq!(machine.has_symbol(&["wanted"]), Some(false));
        write("");
        assert_eq!(machine.has_symbol(&["wanted"]), None);
    }
}
