//! NVIDIA's own library, which needs no driver to be opened and asked. `.ci/real-libraries` fetches it and says which version
//! it is by `FOREBAY_CUFILE_VERSION`; without that there is nothing to test.

use cufile_sys::sys::CUfileOpError;
use cufile_sys::{Error, Library};

/// What the libraries of CUDA 12 lack, and in which version it came.
const ADDED: [(i32, &[&str]); 4] = [
    (
        1140,
        &[
            "cuFileGetParameterSizeT",
            "cuFileGetParameterBool",
            "cuFileGetParameterString",
            "cuFileSetParameterSizeT",
            "cuFileSetParameterBool",
            "cuFileSetParameterString",
        ],
    ),
    (
        1150,
        &[
            "cuFileGetBARSizeInKB",
            "cuFileGetParameterMinMaxValue",
            "cuFileSetStatsLevel",
            "cuFileGetStatsLevel",
            "cuFileStatsStart",
            "cuFileStatsStop",
            "cuFileStatsReset",
            "cuFileGetStatsL1",
            "cuFileGetStatsL2",
            "cuFileGetStatsL3",
        ],
    ),
    (1160, &["cuFileDriverGetP2PFlags"]),
    (1190, &["cuFileReadv"]),
];

fn library() -> Option<(&'static Library, i32)> {
    let Ok(version) = std::env::var("FOREBAY_CUFILE_VERSION") else {
        eprintln!("skipped: FOREBAY_CUFILE_VERSION is not set");
        return None;
    };
    Some((Library::open().unwrap_or_else(|error| panic!("{error}")), version.parse().unwrap()))
}

#[test]
fn it_is_found_by_name_and_lacks_only_what_came_later() {
    let Some((library, expected)) = library() else { return };
    assert_eq!(library.version(), Ok(expected));
    let later = ADDED.into_iter().filter(|(since, _)| expected < *since);
    let mut later: Vec<&str> = later.flat_map(|(_, names)| names).copied().collect();
    let mut missing = library.missing();
    later.sort();
    missing.sort();
    assert_eq!(missing, later);
}

/// Before it is open it has nothing to say, and says so.
#[test]
fn unopened_it_answers_with_a_status_that_has_a_name() {
    let Some((library, version)) = library() else { return };
    // SAFETY: the call asks for nothing.
    assert_eq!(unsafe { library.cuFileUseCount() }, Ok(0));
    match library.gpu_reads() {
        Err(Error::Missing(_)) => assert!(version < 1150),
        Err(Error::Failed { code, .. }) => assert_eq!(code, CUfileOpError::CU_FILE_DRIVER_NOT_INITIALIZED),
        other => panic!("{other:?}"),
    }
}
