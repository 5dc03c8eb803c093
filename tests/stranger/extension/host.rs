//! A program with plugins: it loads the shared objects that its arguments name, each of which has a
//! copy of procpool, as it has one itself.

use std::ffi::{CString, c_char, c_int, c_void};

use procpool::{ForkPool, ForkServer, Pool, SpawnPool};

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlclose(library: *mut c_void) -> c_int;
}

struct Plugin(*mut c_void);

impl Plugin {
    fn load(path: &str) -> Self {
        let path = CString::new(path).unwrap();
        let library = unsafe { dlopen(path.as_ptr(), 2) };
        assert!(!library.is_null(), "the library cannot be loaded");
        Self(library)
    }

    fn call(&self, name: &str, argument: u64) -> u64 {
        let c_name = CString::new(name).unwrap();
        let answer = unsafe {
            let function = dlsym(self.0, c_name.as_ptr());
            assert!(!function.is_null(), "there is no `{name}`");
            std::mem::transmute::<*mut c_void, extern "C" fn(u64) -> u64>(function)(argument)
        };
        assert_ne!(answer, u64::MAX, "{name} panicked");
        answer
    }
}

fn main() {
    procpool::init();
    let mut paths = std::env::args().skip(1);
    let closed = paths.next().expect("a path");
    let plugins: Vec<Plugin> = paths.map(|path| Plugin::load(&path)).collect();
    let server = ForkServer::start().expect("one thread");
    for plugin in &plugins {
        assert_eq!(plugin.call("start_server", 0), 0);
    }
    // All at the same time: the program's own pools, and each plugin's.
    let own = ForkPool::builder()
        .processes(1)
        .fork_server(&server)
        .build()
        .unwrap();
    let spawned = SpawnPool::builder().processes(1).build().unwrap();
    for backend in [1, 2] {
        for plugin in &plugins {
            assert_eq!(plugin.call("open_pool", backend), 0);
        }
        for _ in 0..3 {
            for plugin in &plugins {
                assert_eq!(plugin.call("squares", 4), 14 + 4 * 7);
                assert_eq!(plugin.call("crash", 5), 1);
            }
            assert_eq!(own.map(|x: u64| x + 1, 0..3).unwrap(), [1, 2, 3]);
            assert_eq!(spawned.map(|x: u64| x + 2, 0..3).unwrap(), [2, 3, 4]);
        }
    }
    println!("pools of {} plugins and of the program work", plugins.len());
    // Objects stay, also one that nothing but the crate holds: what its thread had is gone.
    let path = closed.clone();
    let thread = std::thread::spawn(move || {
        let plugin = Plugin::load(&path);
        assert_eq!(plugin.call("open_pool", 0), 0);
        assert_eq!(plugin.call("squares", 4), 14);
        assert_eq!(plugin.call("close_pool", 0), 0);
        unsafe { dlclose(plugin.0) };
    });
    thread.join().unwrap();
    for plugin in &plugins {
        unsafe { dlclose(plugin.0) };
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains(&closed), "it was unloaded");
    println!("and their objects stay");
}
