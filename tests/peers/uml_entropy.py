"""Build the entropy driver for user-mode Linux, which Debian's build of that kernel leaves out.

The driver is the kernel's own file, of exactly the version that Debian built user-mode Linux from. Kbuild would want
the whole source, flex and bison; one file wants only the headers, a configuration and what Kbuild generates of the
headers: constants that the compiler is asked for, and stand-ins for headers that an architecture does not have.
"""

import gzip
import re
import shutil
import subprocess

# What of the source is needed, as tar names it below the source's directory.
NEEDED = (
    "include",
    "arch/um/include",
    "arch/x86/include",
    "arch/x86/um",
    "kernel/bounds.c",
    "drivers/char/hw_random/virtio-rng.c",
)

# Numbers of system calls and times, which the headers include and this driver does not use.
EMPTY = (
    "asm/unistd_64.h",
    "asm/unistd_64_x32.h",
    "asm/unistd_32_ia32.h",
    "generated/asm-offsets.h",
    "generated/timeconst.h",
    "generated/bounds.h",
)

# As arch/um and the kernel's Makefile have them, where they change what the compiler makes.
FLAGS = (
    *("-D__KERNEL__", "-D__arch_um__", "-DMODULE", '-DKBUILD_MODNAME="virtio_rng"', "-D__KBUILD_MODNAME=virtio_rng"),
    *('-DKBUILD_BASENAME="virtio_rng"', "-Dvmap=kernel_vmap", "-Derrno=kernel_errno"),
    *("-Dsigprocmask=kernel_sigprocmask", "-Dmktime=kernel_mktime"),
    *("-nostdinc", "-std=gnu11", "-O2", "-m64", "-mcmodel=large", "-fno-common", "-fno-strict-aliasing"),
    *("-fshort-wchar", "-fno-PIE", "-fno-asynchronous-unwind-tables", "-fno-delete-null-pointer-checks"),
    *("-fno-stack-protector", "-funsigned-char", "-fomit-frame-pointer", "-w"),
)

# What modpost would add: how the kernel knows the module.
MODULE = """
#define INCLUDE_VERMAGIC
#include <linux/module.h>
#include <linux/vermagic.h>
MODULE_INFO(vermagic, VERMAGIC_STRING);
MODULE_INFO(name, KBUILD_MODNAME);
MODULE_INFO(depends, "");
__visible struct module __this_module __section(".gnu.linkonce.this_module") = {
    .name = KBUILD_MODNAME, .init = init_module, .exit = cleanup_module, .arch = MODULE_ARCH_INIT };
"""


def build(source, release, configuration, module):
    """Compile ``module`` from the kernel's ``source`` directory; ``configuration`` is its .config, compressed.

    Raises subprocess.CalledProcessError with what the compiler said.
    """
    made = module.parent / "build"
    shutil.rmtree(made, ignore_errors=True)
    for directory in ("asm", "generated"):
        (made / directory).mkdir(parents=True)
    for name in EMPTY:
        (made / name).touch()
    (made / "generated" / "autoconf.h").write_text(_autoconf(gzip.decompress(configuration.read_bytes()).decode()))
    (made / "generated" / "utsrelease.h").write_text(f'#define UTS_RELEASE "{release}"\n')
    _stand_ins(source, made / "asm")
    (made / "module.c").write_text(MODULE)

    um, x86 = source / "arch/um", source / "arch/x86"
    include = [um / "include", made, source / "include", um / "include/uapi", source / "include/uapi"]
    include += [um / "include/shared", x86 / "um/shared", um / "include/shared/skas", x86 / "um"]
    include += [x86 / "include", x86 / "include/uapi"]
    first = [source / "include/linux" / name for name in ("compiler-version.h", "kconfig.h", "compiler_types.h")]
    options = [*FLAGS, *(f"-I{path}" for path in include), *(word for path in first for word in ("-include", path))]

    bounds = _constants([*options, "-D__GENERATING_BOUNDS_H", source / "kernel/bounds.c"])
    of_user = _constants(
        ["-w", f"-I{um / 'include/shared'}", "-idirafter", source / "include", x86 / "um/user-offsets.c"]
    )
    (made / "generated" / "bounds.h").write_text(bounds)
    (made / "generated" / "user_constants.h").write_text(of_user)
    objects = []
    for file in (source / NEEDED[-1], made / "module.c"):
        objects.append(made / f"{file.stem}.o")
        _compiler([*options, "-c", "-o", objects[-1], file])
    _compiler(["-r", "-nostdlib", "-m64", "-o", module, *objects])


def _compiler(arguments):
    return subprocess.run(["cc", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=300).stdout


def _constants(arguments):
    """The #defines of a file that Kbuild has compiled to assembler text for the sake of its constants."""
    marks = re.findall(r"->(\w+) \$?(-?\d+)", _compiler([*arguments, "-S", "-o", "-"]))
    return "".join(f"#define {name} {value}\n" for name, value in marks)


def _autoconf(configuration):
    """The configuration as the compiler takes it: y is 1, m is 1 under a name of its own."""
    lines = []
    for name, value in re.findall(r"^(CONFIG_\w+)=(.*)$", configuration, re.MULTILINE):
        lines.append(f"#define {name}{'_MODULE' if value == 'm' else ''} {'1' if value in ('y', 'm') else value}\n")
    return "".join(lines)


def _stand_ins(source, directory):
    """Headers that are the generic ones because the architecture says so, or has none of its own."""
    own = [source / "arch" / sub for sub in ("um/include/asm", "x86/um/asm", "x86/include/uapi/asm")]
    for generic in (source / "include/asm-generic", source / "include/uapi/asm-generic"):
        wanted = re.findall(r"(?:generic|mandatory)-y \+= (\S+)", "".join(map(_text, _lists(source, generic))))
        for name in wanted:
            if (generic / name).exists() and not any((place / name).exists() for place in own):
                (directory / name).write_text(f"#include <asm-generic/{name}>\n")


def _lists(source, generic):
    sub = "include/uapi/asm" if "uapi" in generic.parts else "include/asm"
    return [generic / "Kbuild", source / "arch/x86" / sub / "Kbuild", source / "arch/um" / sub / "Kbuild"]


def _text(path):
    return path.read_text() if path.exists() else ""
