//! What a program sets before it opens the library: by calls, by the environment, by the file that the environment names.

use std::ffi::{CString, c_uint};

use cufile_sys::sys::*;

use crate::library::{Answer, Library, Refusal};
use crate::settings::{Way, settings};

const INVALID: Refusal = Refusal { code: CUfileOpError::CU_FILE_INVALID_VALUE, cuda: 0 };

/// Sizes, as NVIDIA's library of CUDA 13 has them, by the number of their parameter.
const SIZES: [usize; 12] = [0, 128, 4, 8192, 4, 16384, 131_072, 1024, 33_554_432, 128, 4, 5];
/// The most that a size may be: a limit of the stand-in's but for the entries of a batch.
const SIZE_MAX: usize = 1 << 40;
const BATCH_MAX: usize = 128;
const BATCH_PARAMETER: usize = 9;
const TEXTS: usize = 4;

/// What is on unless a program says otherwise, by the number of the parameter.
const BOOLS: [bool; 14] =
    [false, true, false, false, false, false, true, false, false, false, false, false, false, false];
const ALLOW_COMPATIBILITY: usize = 1;
const FORCE_COMPATIBILITY: usize = 2;

/// The parameters that calls have set.
#[derive(Default)]
pub struct Parameters {
    sizes: [Option<usize>; SIZES.len()],
    bools: [Option<bool>; BOOLS.len()],
    texts: [Option<CString>; TEXTS],
    /// The four that have calls of their own: poll mode and its threshold in KiB among them.
    pub polls: bool,
}

impl Parameters {
    /// Whether files may go through the host's memory.
    pub fn allows_compatibility(&self) -> bool {
        self.bool(ALLOW_COMPATIBILITY)
    }

    /// Whether all files do.
    pub fn forces_compatibility(&self) -> bool {
        self.bool(FORCE_COMPATIBILITY)
    }

    /// The most reads of a batch.
    pub fn batch_entries_max(&self) -> usize {
        self.size(BATCH_PARAMETER)
    }

    fn size(&self, number: usize) -> usize {
        self.sizes[number].unwrap_or(SIZES[number])
    }

    fn bool(&self, number: usize) -> bool {
        let (variable, key) = match number {
            ALLOW_COMPATIBILITY => ("CUFILE_ALLOW_COMPAT_MODE", "allow_compat_mode"),
            FORCE_COMPATIBILITY => ("CUFILE_FORCE_COMPAT_MODE", "force_compat_mode"),
            _ => return self.bools[number].unwrap_or(BOOLS[number]),
        };
        let environment = || std::env::var(variable).ok().and_then(|value| is_true(&value));
        let file = || {
            std::fs::read_to_string(std::env::var_os("CUFILE_ENV_PATH_JSON")?).ok().and_then(|text| find(&text, key))
        };
        self.bools[number].or_else(environment).or_else(file).unwrap_or(BOOLS[number])
    }
}

fn is_true(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// The value of a key of the configuration file, which is JSON with comments.
fn find(text: &str, key: &str) -> Option<bool> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let values = lines.filter_map(|line| line.split_once(&format!("\"{key}\""))?.1.trim_start().strip_prefix(':'));
    values.filter_map(|value| is_true(value.split([',', '}']).next()?)).next_back()
}

impl Library {
    fn expect_closed(&self) -> Answer {
        if self.uses > 0 { Err(CUfileOpError::CU_FILE_DRIVER_ALREADY_OPEN.into()) } else { Ok(()) }
    }

    /// A parameter that is a size.
    pub fn size(&self, number: c_uint) -> Answer<usize> {
        if number as usize >= SIZES.len() {
            return Err(INVALID);
        }
        Ok(self.parameters.size(number as usize))
    }

    /// Sets it.
    pub fn set_size(&mut self, number: c_uint, value: usize) -> Answer {
        self.expect_closed()?;
        if value > Self::size_max(number)? {
            return Err(INVALID);
        }
        self.parameters.sizes[number as usize] = Some(value);
        Ok(())
    }

    /// The most that it may be.
    pub fn size_max(number: c_uint) -> Answer<usize> {
        match number as usize {
            BATCH_PARAMETER => Ok(BATCH_MAX),
            number if number < SIZES.len() => Ok(SIZE_MAX),
            _ => Err(INVALID),
        }
    }

    /// A parameter that is on or off.
    pub fn bool(&self, number: c_uint) -> Answer<bool> {
        if number as usize >= BOOLS.len() {
            return Err(INVALID);
        }
        Ok(self.parameters.bool(number as usize))
    }

    /// Sets it.
    pub fn set_bool(&mut self, number: c_uint, value: bool) -> Answer {
        self.expect_closed()?;
        *self.parameters.bools.get_mut(number as usize).ok_or(INVALID)? = Some(value);
        Ok(())
    }

    /// A parameter that is text.
    pub fn text(&self, number: c_uint) -> Answer<CString> {
        let text = self.parameters.texts.get(number as usize).ok_or(INVALID)?;
        Ok(text.clone().unwrap_or_default())
    }

    /// Sets it.
    pub fn set_text(&mut self, number: c_uint, value: CString) -> Answer {
        self.expect_closed()?;
        *self.parameters.texts.get_mut(number as usize).ok_or(INVALID)? = Some(value);
        Ok(())
    }

    /// What the library says of itself and of nvidia-fs.
    pub fn properties(&self) -> CUfileDrvProps_t {
        let way = match self.parameters.forces_compatibility() {
            true => Way::Posix,
            false => settings().path.0,
        };
        let bit = |set: bool, number: c_uint| c_uint::from(set) << number;
        let parameters = &self.parameters;
        CUfileDrvProps_t {
            nvfs: CUfileDrvProps__bindgen_ty_1 {
                major_version: if way == Way::Nvfs { 2 } else { 0 },
                minor_version: if way == Way::Nvfs { 27 } else { 0 },
                poll_thresh_size: parameters.size(10),
                max_direct_io_size: parameters.size(5),
                dstatusflags: bit(way != Way::Posix, CUfileDriverStatusFlags::CU_FILE_NVME_SUPPORTED.0),
                dcontrolflags: bit(parameters.polls, CUfileDriverControlFlags::CU_FILE_USE_POLL_MODE.0)
                    | bit(parameters.allows_compatibility(), CUfileDriverControlFlags::CU_FILE_ALLOW_COMPAT_MODE.0),
            },
            // All that is numbered below peer-to-peer DMA; nothing where compatibility mode is forced.
            fflags: if parameters.forces_compatibility() { 0 } else { 15 }
                | bit(way == Way::P2p, CUfileFeatureFlags::CU_FILE_P2P_SUPPORTED.0),
            max_device_cache_size: parameters.size(6) as c_uint,
            per_buffer_cache_size: parameters.size(7) as c_uint,
            max_device_pinned_mem_size: parameters.size(8) as c_uint,
            max_batch_io_size: parameters.size(BATCH_PARAMETER) as c_uint,
            max_batch_io_timeout_msecs: parameters.size(11) as c_uint,
        }
    }

    /// How files on a kind of storage reach a GPU: bits, numbered by `CUfileP2PFlags`.
    pub fn p2p_flags(&self, kind: c_uint) -> Answer<c_uint> {
        self.expect_open("cuFileDriverGetP2PFlags")?;
        if kind >= CUfileDriverStatusFlags::CU_FILE_MAX_TARGET_TYPES.0 {
            return Err(INVALID);
        }
        if kind != CUfileDriverStatusFlags::CU_FILE_NVME_SUPPORTED.0 || self.parameters.forces_compatibility() {
            return Ok(0);
        }
        Ok(match settings().path.0 {
            Way::Nvfs => 1 << CUfileP2PFlags::CUFILE_NVFS.0,
            Way::P2p => 1 << CUfileP2PFlags::CUFILE_P2PDMA.0,
            Way::Posix => 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_file_is_json_with_comments() {
        let text = "{\n  // \"allow_compat_mode\": true,\n  \"properties\": {\n \"allow_compat_mode\" : false, }\n}";
        assert_eq!(find(text, "allow_compat_mode"), Some(false));
        assert_eq!(find(text, "force_compat_mode"), None);
        assert_eq!(find("\"allow_compat_mode\":true}", "allow_compat_mode"), Some(true));
    }
}
