//! Every file system reads the same bytes, and what mode each was read in is told: mounted for the purpose in a mount
//! namespace that nobody else sees. What cannot be mounted here is left out, and named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::engine_common::{self, content, rigs};
use forebay::engine::Outcome;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const LEN: usize = 300_001;
const IMAGE_BYTES: u64 = 320 << 20;

#[test]
fn tmpfs() {
    on("tmpfs", |folder| {
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=16m"))
            .map_err(|errno| errno.to_string())
    });
}

#[test]
fn ext4() {
    on("ext4", |folder| image(folder, "mkfs.ext4", &["-q", "-F"]));
}

#[test]
fn xfs() {
    on("xfs", |folder| image(folder, "mkfs.xfs", &["-q"]));
}

#[test]
fn btrfs() {
    on("btrfs", |folder| image(folder, "mkfs.btrfs", &["-q"]));
}

/// The root of most containers: files of an image below, changes above.
#[test]
fn overlayfs() {
    on("overlay", |folder| {
        // Overlayfs cannot have its changes on another one.
        let base = folder.with_extension("layers");
        fs::create_dir(&base).map_err(|error| error.to_string())?;
        mount(Some("tmpfs"), &base, Some("tmpfs"), MsFlags::empty(), Some("size=16m"))
            .map_err(|errno| errno.to_string())?;
        let layers = ["lower", "upper", "work"].map(|name| base.join(name));
        layers.iter().try_for_each(fs::create_dir).map_err(|error| error.to_string())?;
        let [lower, upper, work] = layers.map(|layer| layer.display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        mount(Some("overlay"), folder, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|errno| errno.to_string())
    });
}

/// Served by this machine to itself, where there is a server that runs and exports.
#[test]
fn nfs() {
    on("nfs4", |folder| {
        let exported = folder.with_extension("exported");
        fs::create_dir(&exported).map_err(|error| error.to_string())?;
        let export = format!("localhost:{}", exported.display());
        run(Command::new("exportfs").args(["-o", "rw,insecure,no_root_squash,fsid=77", &export]))?;
        let mounted = run(Command::new("mount").args(["-t", "nfs4", "-o", "soft,timeo=50"]).arg(&export).arg(folder));
        let _ = run(Command::new("exportfs").args(["-u", &export]));
        mounted
    });
}

/// Mounts a file system and reads from it by every engine, on a thread that has the mount to itself.
fn on(kind: &'static str, mount_at: impl FnOnce(&Path) -> Result<(), String> + Send + 'static) {
    let done = thread::spawn(move || {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !known.lines().any(|line| line.split_whitespace().next_back() == Some(kind)) {
            return Err("the kernel does not know it".to_owned());
        }
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("a mount namespace of its own: {errno}"))?;
        let root: Option<&str> = None;
        mount(root, "/", root, MsFlags::MS_REC | MsFlags::MS_PRIVATE, root).map_err(|errno| errno.to_string())?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let at = folder.path().join("mounted");
        fs::create_dir(&at).map_err(|error| error.to_string())?;
        mount_at(&at)?;
        read_all(kind, &at);
        // What is mounted there goes with the namespace; the folder below it would be busy until then.
        let _ = nix::mount::umount2(&at, nix::mount::MntFlags::MNT_DETACH);
        let _ = nix::mount::umount2(&at.with_extension("layers"), nix::mount::MntFlags::MNT_DETACH);
        Ok(())
    })
    .join();
    match done {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => eprintln!("skipped: {kind} cannot be mounted here: {cause}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn read_all(kind: &str, folder: &Path) {
    let (large, small) = (folder.join("large"), folder.join("small"));
    fs::write(&large, content(3, LEN)).unwrap();
    fs::write(&small, content(4, 5000)).unwrap();
    for mut rig in rigs(4 << 20, 8) {
        let file = rig.open(&large).unwrap();
        assert!(rig.read(&file, 0, LEN).unwrap() == content(3, LEN), "{} on {kind}", rig.name);
        let ranges: Vec<(u64, usize)> = (0..200).map(|step| (step * 1499, 1 + step as usize * 7)).collect();
        rig.read_all(&file, &ranges, |(offset, len), bytes| {
            assert!(bytes == &content(3, LEN)[offset as usize..offset as usize + len], "{kind}: {len} at {offset}");
        });
        let region = rig.engine.arena().alloc(8192).unwrap().unwrap();
        rig.engine.read_file(1, &small, region);
        let mut completions = Vec::new();
        rig.engine.reap(1, engine_common::TIMEOUT, &mut completions).unwrap();
        let how = match completions.remove(0).result.unwrap() {
            Outcome::ReadFile { region, .. } => {
                assert!(region.as_slice() == content(4, 5000), "{} on {kind}", rig.name);
                "in one go"
            }
            Outcome::Opened(file) => {
                assert!(rig.read(&file, 0, 5000).unwrap() == content(4, 5000), "{} on {kind}", rig.name);
                "opened, then read"
            }
            other => panic!("{other:?}"),
        };
        let through = if file.is_direct() { "around the page cache" } else { "through the page cache" };
        let align = file.align_bytes();
        println!("{kind} by {}: {through}, in units of {align} bytes, small files {how}", rig.name);
        for fallback in rig.engine.fallbacks() {
            println!("    {fallback}");
        }
    }
}

/// A file system of its own in a file.
fn image(folder: &Path, make: &str, arguments: &[&str]) -> Result<(), String> {
    let image: PathBuf = folder.with_extension("image");
    let file = fs::File::create(&image).map_err(|error| error.to_string())?;
    file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
    run(Command::new(make).args(arguments).arg(&image))?;
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(folder))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {}", said.trim())) }
}
