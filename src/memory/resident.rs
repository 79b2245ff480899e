//! What of the process's memory is really there.

/// Bytes of this process that are in memory now; `None` where the kernel does not say.
pub(crate) fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Gives back to the system what was freed. glibc keeps freed pieces of up to 32 MiB for the thread that had them, which
/// would let every thread keep what only one of them may have at a time. Another allocator is left to its own ways.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the allocator's own locks and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whether the kernel backs all memory with huge pages, stacks and heaps of threads included.
pub(crate) fn are_all_pages_huge() -> bool {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    enabled.is_ok_and(|enabled| enabled.contains("[always]"))
}
