//! Inputs as files, for what reads files alone.

use std::path::{Path, PathBuf};

/// A folder in memory where there is one, removed at the end of the process that does not crash.
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// A new folder.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = root.join(format!("forebay-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for inputs");
        Self { folder }
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).expect("an input written");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is lost where it stays behind.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
