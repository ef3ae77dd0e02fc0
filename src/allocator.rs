//! jemalloc for the whole program, C libraries included, on Linux. (Elsewhere it
//! could not take malloc's place.)
//!
//! librdkafka makes a dozen small allocations per record on one thread and frees
//! them on another. With glibc's arenas that was half of a worker's CPU: 26 us a
//! command of the bank against 14, in the same minutes. Linking is enough: jemalloc
//! takes the place of `malloc`, so a program may still have a `#[global_allocator]`
//! of its own.

use std::ffi::{c_char, c_void};

/// Keeps the linker from leaving jemalloc out: nothing else refers to it by name.
#[used]
static LINKED: unsafe extern "C" fn(usize) -> *mut c_void = tikv_jemalloc_sys::malloc;

/// Read by jemalloc when it starts; `MALLOC_CONF` in the environment wins. Few
/// arenas, and pages go back to the system within a second: a worker's memory
/// should follow its load.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: Options =
    Options(c"narenas:4,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr());

#[repr(transparent)]
struct Options(*const c_char);

// SAFETY: points to a constant that ends with NUL and is never written.
unsafe impl Sync for Options {}
