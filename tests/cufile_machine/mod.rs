//! NVIDIA's own libcufile on the simulated CUDA driver (tests/simcuda), in a process that sees the machine which it
//! wants: with `/proc/modules`, and with what udev says of the disk. A mount namespace of the process's own holds both;
//! the machine is left as it is.
#![allow(dead_code)] // Each test file uses its part.

pub mod stage;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cuda_support::Simulator;

/// Folder of NVIDIA's library, without which there is nothing to test. `.ci/real-libraries` fetches it.
const LIBRARY_FOLDER: &str = "FOREBAY_CUFILE_LIB_DIR";

/// Runs as root of its own mount namespace: `/proc` becomes a folder of links to the real one, `/run` an empty one.
const SCRIPT: &str = r#"
mount -t tmpfs tmpfs "$MACHINE_STAGE"
mkdir "$MACHINE_STAGE/proc" "$MACHINE_STAGE/seen"
mount --bind /proc "$MACHINE_STAGE/proc"
for entry in /proc/[a-z]*; do
    if [ "$entry" != /proc/modules ]; then ln -s "$MACHINE_STAGE$entry" "$MACHINE_STAGE/seen/"; fi
done
ln -s "$MACHINE_STAGE/proc/$$" "$MACHINE_STAGE/seen/$$"
if [ -n "$MACHINE_MODULES" ]; then : >"$MACHINE_STAGE/seen/modules"; fi
mount --bind "$MACHINE_STAGE/seen" /proc
mount -t tmpfs tmpfs /run
if [ -n "$MACHINE_DISK" ]; then
    mkdir -p /run/udev/data
    printf 'E:ID_FS_USAGE=filesystem\nE:ID_FS_TYPE=ext4\n' >"/run/udev/data/b$MACHINE_DISK"
fi
exec "$@"
"#;

/// A machine that has all that libcufile looks for, but nvidia-fs.
pub struct Machine {
    library: PathBuf,
    /// Where files lie that the program reads.
    pub folder: tempfile::TempDir,
    disk: String,
    modules: bool,
    udev: bool,
}

/// The machine, or none, said with the reason, where it cannot be had.
pub fn machine() -> Option<Machine> {
    let skipped = |reason: &str| {
        eprintln!("skipped: {reason}");
        None
    };
    let Some(library) = std::env::var_os(LIBRARY_FOLDER).map(PathBuf::from) else {
        return skipped(&format!("{LIBRARY_FOLDER} is not set"));
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let device = folder.path().metadata().unwrap().dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    if major == 0 {
        return skipped("the target folder is on no disk, and libcufile reads from nothing else");
    }
    let machine = Machine { library, folder, disk: format!("{major}:{minor}"), modules: true, udev: true };
    let output = machine.command(Path::new("true"), None).output();
    match output {
        Ok(output) if output.status.success() => Some(machine),
        Ok(output) => skipped(&format!("no mount namespace: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => skipped(&format!("unshare: {error}")),
    }
}

impl Machine {
    /// Without `/proc/modules`, as in many containers.
    pub fn without_modules(mut self) -> Self {
        self.modules = false;
        self
    }

    /// Without udev's word on the disk, likewise.
    pub fn without_udev(mut self) -> Self {
        self.udev = false;
        self
    }

    /// The program, to be run on this machine: on the simulated driver, or on none.
    pub fn command(&self, program: &Path, driver: Option<&Simulator>) -> Command {
        let mut command = Command::new("unshare");
        // SAFETY: the call has no conditions.
        if unsafe { libc::geteuid() } != 0 {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh", "-ec", SCRIPT, "sh"]).arg(program);
        command.env_remove("LD_LIBRARY_PATH");
        if let Some(driver) = driver {
            driver.dress(&mut command);
        }
        let before = command.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH").and_then(|(_, value)| value);
        let before: Vec<PathBuf> = before.iter().flat_map(std::env::split_paths).collect();
        let libraries = std::env::join_paths(before.iter().chain([&self.library])).unwrap();
        command.env("LD_LIBRARY_PATH", libraries);
        let stage = self.folder.path().join("stage");
        std::fs::create_dir_all(&stage).unwrap();
        command.env("MACHINE_STAGE", stage);
        command.env("MACHINE_MODULES", if self.modules { "yes" } else { "" });
        command.env("MACHINE_DISK", if self.udev { &self.disk } else { "" });
        // Otherwise it goes to the current folder.
        command.env("CUFILE_LOGFILE_PATH", self.folder.path().join("cufile.log"));
        command
    }
}
