//! The binary needs nothing of the machine it runs on but the C library.

use std::process::Command;

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn only_the_c_library_is_linked_dynamically() {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let archive = Command::new(&compiler).arg("-print-file-name=libstdc++.a").output();
    let found = archive.is_ok_and(|output| output.stdout.starts_with(b"/"));
    if !found {
        println!("skipped: {compiler} has no static C++ library");
        return;
    }
    let output = Command::new("ldd").arg(env!("CARGO_BIN_EXE_verlet")).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let names = ["linux-vdso", "libc.so", "libm.so", "ld-linux", "libdl.so", "libpthread.so", "librt.so"];
    for line in text.lines() {
        assert!(names.iter().any(|name| line.contains(name)), "the binary also needs{line}");
    }
}
