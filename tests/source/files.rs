//! Promises of folders and lists: the same samples in the same order always, nothing left out in silence.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay::ErrorKind;
use forebay::source::{Extent, Folder, List, Source, UNLABELLED, open};
use tempfile::{TempDir, tempdir};

fn tree(files: &[&str]) -> TempDir {
    let dir = tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    dir
}

fn keys(source: &dyn Source) -> Vec<String> {
    let mut key = String::from("what was there before");
    (0..source.len())
        .map(|sample| {
            source.key(sample, &mut key).unwrap();
            key.clone()
        })
        .collect()
}

fn labels(source: &dyn Source) -> Vec<i64> {
    (0..source.len()).map(|sample| source.label(sample).unwrap()).collect()
}

fn path(source: &dyn Source, sample: u64) -> PathBuf {
    let Extent::Object(object) = source.extent(sample).unwrap() else { panic!("a file is an object") };
    let mut path = PathBuf::from("what was there before");
    source.object_path(object, &mut path).unwrap();
    path
}

fn note(source: &dyn Source, part: &str) -> bool {
    source.notes().iter().any(|note| note.contains(part))
}

#[test]
fn classes_are_the_folders_at_the_top() {
    let dir = tree(&[
        "cat/b.JPG",
        "cat/a.jpeg",
        "cat/deep/er/c.png",
        "cat-big/d.webp",
        "ant/z.jpg",
        "ant/notes.txt",
        "ant/.hidden.jpg",
        ".git/e.jpg",
        "loose.jpg",
    ]);
    fs::create_dir(dir.path().join("bee")).unwrap();
    let source = Folder::open(dir.path()).unwrap();
    assert_eq!(source.classes(), ["ant", "bee", "cat", "cat-big"]);
    // By path bytes: "-" comes before "/".
    assert_eq!(keys(&source), ["ant/z", "cat-big/d", "cat/a", "cat/b", "cat/deep/er/c"]);
    assert_eq!(labels(&source), [0, 3, 2, 2, 2]);
    assert_eq!(path(&source, 3), dir.path().join("cat/b.JPG"));
    assert_eq!(fs::read(path(&source, 4)).unwrap(), b"cat/deep/er/c.png");
    assert!(note(&source, "beside the class folders, so of no class, left out: 1, such as loose.jpg"));
    assert!(note(&source, "left out: 1, such as ant/notes.txt"));
    assert!(note(&source, "class folders without images, which keep their label: 1, such as bee"));
    assert!(source.extent(5).is_err() && source.label(5).is_err() && source.key(5, &mut String::new()).is_err());
}

#[test]
fn a_flat_folder_has_no_labels() {
    let dir = tree(&["b.jpg", "a.jpg", "a.b.jpg", "x.txt"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    let source = open(dir.path().join("")).unwrap();
    assert_eq!(keys(&*source), ["a.b", "a", "b"]);
    assert_eq!(labels(&*source), [UNLABELLED; 3]);
    assert!(source.classes().is_empty());
    assert_eq!(path(&*source, 0), dir.path().join("a.b.jpg"));
}

#[test]
fn the_order_is_that_of_paths_as_bytes_every_time() {
    let mut files = Vec::new();
    for class in 0..40 {
        for file in 0..25 {
            files.push(format!("c{class}/{}{}.jpg", ["", "s/", "s-/", "t/u/"][file % 4], file * 7 % 25));
        }
    }
    let dir = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
    files.sort();
    let expected: Vec<String> = files.iter().map(|file| file.replace(".jpg", "")).collect();
    for _ in 0..20 {
        let source = Folder::open(dir.path()).unwrap();
        assert_eq!(keys(&source), expected);
    }
}

#[test]
fn names_need_not_be_utf8() {
    let dir = tempdir().unwrap();
    let class = dir.path().join(OsStr::from_bytes(b"cl\xe4ss"));
    fs::create_dir(&class).unwrap();
    let name = [class.as_os_str().as_bytes(), b"/\xff\xfe.jpg"].concat();
    let name = PathBuf::from(std::ffi::OsString::from_vec(name));
    fs::write(&name, b"image").unwrap();
    let source = Folder::open(dir.path()).unwrap();
    assert_eq!(path(&source, 0), name);
    assert_eq!(keys(&source), ["cl\u{fffd}ss/\u{fffd}\u{fffd}"]);
    assert_eq!(source.classes(), ["cl\u{fffd}ss"]);
}

#[test]
fn links_are_followed_and_loops_are_not() {
    let dir = tree(&["real/cat/a.jpg", "real/cat/b.jpg", "set/dog/c.jpg"]);
    let set = dir.path().join("set");
    symlink("../real/cat", set.join("cat")).unwrap();
    symlink("../../real/cat/a.jpg", set.join("dog/d.jpg")).unwrap();
    symlink("nowhere.jpg", set.join("dog/e.jpg")).unwrap();
    symlink("..", set.join("dog/up")).unwrap();
    symlink(".", set.join("dog/self")).unwrap();
    // Two folders that link to each other from outside the tree.
    fs::create_dir_all(dir.path().join("x")).unwrap();
    fs::create_dir_all(dir.path().join("y")).unwrap();
    symlink("../y", dir.path().join("x/y")).unwrap();
    symlink("../x", dir.path().join("y/x")).unwrap();
    symlink("../../x", set.join("dog/x")).unwrap();
    let source = Folder::open(&set).unwrap();
    assert_eq!(keys(&source), ["cat/a", "cat/b", "dog/c", "dog/d"]);
    assert_eq!(labels(&source), [0, 0, 1, 1]);
    assert!(note(&source, "lead nowhere left out: 1, such as dog/e.jpg"));
    assert!(note(&source, "lead back up or too far: 3, such as dog/self"));
    assert_eq!(fs::read(path(&source, 0)).unwrap(), b"real/cat/a.jpg");
}

#[test]
fn missing_empty_and_odd_things_are_named_with_a_remedy() {
    let dir = tree(&["images/readme.md", "photo.jpg", "blob.bin"]);
    for (name, kind) in [
        ("missing", ErrorKind::NotFound),
        ("images", ErrorKind::EmptyDataset),
        ("photo.jpg", ErrorKind::Unsupported),
        ("blob.bin", ErrorKind::Unsupported),
    ] {
        let error = open(dir.path().join(name)).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(name) && error.remedy().is_some(), "{error}");
    }
    let error = open(dir.path().join("images")).err().unwrap();
    assert!(error.to_string().contains("readme.md"), "{error}");
    assert_eq!(open("s3://bucket/train").err().unwrap().kind(), ErrorKind::Unsupported);
    assert_eq!(open("").err().unwrap().kind(), ErrorKind::NotFound);
}

/// Root may read every folder, so that root runs this test again as nobody.
#[test]
fn an_unreadable_folder_is_an_error_that_names_it() {
    const CLOSED: &str = "FOREBAY_TEST_CLOSED_FOLDER";
    if let Some(root) = std::env::var_os(CLOSED) {
        return check_unreadable(Path::new(&root));
    }
    let dir = tree(&["cat/a.jpg", "dog/b.jpg"]);
    let closed = dir.path().join("dog");
    set_mode(dir.path(), 0o755);
    set_mode(&closed, 0o000);
    if fs::read_dir(&closed).is_err() {
        check_unreadable(dir.path());
    } else {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "files::an_unreadable_folder_is_an_error_that_names_it"]).env(CLOSED, dir.path());
        match again.uid(65_534).gid(65_534).output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => println!("skipped: the test cannot be run as nobody: {error}"),
        }
    }
    set_mode(&closed, 0o755);
}

fn check_unreadable(root: &Path) {
    let error = open(root).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("dog") && error.remedy().unwrap().contains("rights"), "{error}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn lists_name_samples_relative_to_themselves() {
    let dir = tree(&["cat/a.jpg", "b c.jpg"]);
    let list = dir.path().join("train.txt");
    fs::write(&list, "\u{feff}# samples\ncat/a.jpg\t3\r\n\n  b c.jpg 12\n./cat/a.jpg,4\n/abs/d.png\n\"x,y.jpg\",-7")
        .unwrap();
    let source = open(&list).unwrap();
    assert_eq!(keys(&*source), ["cat/a", "b c", "cat/a", "/abs/d", "x,y"]);
    assert_eq!(labels(&*source), [3, 12, 4, UNLABELLED, -7]);
    assert_eq!(fs::read(path(&*source, 0)).unwrap(), b"cat/a.jpg");
    assert_eq!(fs::read(path(&*source, 1)).unwrap(), b"b c.jpg");
    assert_eq!(path(&*source, 3), Path::new("/abs/d.png"));
    assert!(source.extent(5).is_err() && source.label(5).is_err());
}

#[test]
fn column_names_of_tables_are_skipped_and_noted() {
    let dir = tempdir().unwrap();
    for (name, text) in
        [("a.csv", "path,label\na.jpg,1\n"), ("a.tsv", "image\ttarget\na.jpg\t1\n"), ("b.csv", "a.jpg,1\n")]
    {
        let list = dir.path().join(name);
        fs::write(&list, text).unwrap();
        let source = List::open(&list).unwrap();
        assert_eq!((keys(&source), labels(&source)), (vec!["a".to_owned()], vec![1]), "{name}");
        assert_eq!(source.notes().len(), usize::from(name != "b.csv"));
    }
}

#[test]
fn a_bad_line_is_named_by_its_number() {
    let dir = tempdir().unwrap();
    let list = dir.path().join("bad.txt");
    let long = "x".repeat(100_000);
    for line in ["b.jpg dog", "b.jpg\tdog", "0\t1\tb.jpg", "b\0.jpg", &long] {
        fs::write(&list, format!("a.jpg 1\n# comment\n{line}\n")).unwrap();
        let error = List::open(&list).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{line:.20}");
        assert!(error.to_string().contains("bad.txt, line 3") && error.remedy().is_some(), "{error}");
    }
    fs::write(&list, "# nothing\n\n").unwrap();
    assert_eq!(List::open(&list).err().unwrap().kind(), ErrorKind::EmptyDataset);
    assert_eq!(List::open(dir.path().join("none.txt")).err().unwrap().kind(), ErrorKind::NotFound);
}
