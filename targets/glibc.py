"""Old versions of glibc's functions: what an artefact links with, so that old systems run it.

A linker takes the newest version of each function from the glibc that it finds, and a library that
needs `pow@GLIBC_2.29` does not load where glibc is older, though `pow@GLIBC_2.2.5` would have done:
new systems have the old versions too. So artefacts are linked with libraries of ours in the place
of glibc's, which have its names, the versions of this table, and no code.

A function that is not in the table is undefined when an artefact is linked. Add it with the oldest
version that does what is wanted, if that is not above FLOOR (glibc's sysdeps/**/libc.abilist).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: The newest glibc that any artefact for x86-64 or aarch64 asks for: that of RHEL 7, of 2012.
FLOOR = (2, 17)

_MATH = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp10 exp2 "
    "expm1 fabs fdim floor fma fmax fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log "
    "log10 log1p log2 logb lrint lround modf nearbyint nextafter pow remainder remquo rint round "
    "scalbln scalbn sin sincos sinh sqrt tan tanh tgamma trunc"
)

#: Library → version → names, as x86-64 has them; aarch64 began with GLIBC_2.17, which has them all.
_X86: dict[str, dict[str, str]] = {
    "libm.so.6": {
        "GLIBC_2.2.5": " ".join(f"{name} {name}f" for name in _MATH.split()),
    },
    "libpthread.so.0": {
        "GLIBC_2.2.5": (
            "pthread_attr_setstacksize pthread_create pthread_detach pthread_getattr_np "
            "pthread_getspecific pthread_join pthread_key_create pthread_key_delete pthread_kill "
            "pthread_mutex_trylock pthread_once pthread_setspecific pthread_sigmask sem_destroy "
            "sem_init sem_post sem_trywait sem_wait"
        ),
    },
    "libdl.so.2": {"GLIBC_2.2.5": "dladdr dlclose dlerror dlopen dlsym"},
    "libc.so.6": {
        "GLIBC_2.2.5": (
            "__cxa_finalize __errno_location __fxstat __xstat _exit _setjmp abort abs access "
            "alarm atoi bsearch calloc chdir clock close closedir dup dup2 execve exit fclose "
            "fcntl feof ferror fflush fgetc fgets fileno flock fopen fork fprintf fputc fputs "
            "fread free fscanf fseek fseeko ftell ftello ftruncate fwrite getcwd getenv geteuid "
            "getpagesize getpgid getpid getppid getpriority getrlimit getrusage gettimeofday "
            "getuid ioctl isatty kill labs llabs longjmp lseek madvise malloc memchr memcmp "
            "memmove memrchr memset mincore mkdir mlock mmap mprotect mremap msync munlock "
            "munmap nanosleep open opendir pause perror pipe poll posix_memalign prctl pread "
            "printf pthread_attr_destroy pthread_attr_init pthread_equal pthread_mutex_destroy "
            "pthread_mutex_init pthread_mutex_lock pthread_mutex_unlock pthread_self putchar "
            "puts pwrite qsort raise rand read readdir readlink realloc remove rename rmdir "
            "sched_getscheduler sched_setscheduler sched_yield select setenv setpriority "
            "setrlimit setsid setvbuf sigaction sigaddset sigdelset sigemptyset sigfillset "
            "sigismember signal sigpending sigprocmask sigsuspend sleep snprintf sprintf srand "
            "sscanf stpcpy strcasecmp strcat strchr strcmp strcpy strcspn strdup strerror "
            "strerror_r strlen strncat strncmp strncpy strndup strpbrk strrchr strspn strstr "
            "strtod strtof strtok strtok_r strtol strtoll strtoul strtoull syscall sysconf "
            "sysinfo time times uname unlink usleep vfprintf vsnprintf vsprintf wait waitpid "
            "write"
        ),
        "GLIBC_2.3": "realpath",
        "GLIBC_2.3.2": (
            "__register_atfork pthread_cond_broadcast pthread_cond_destroy pthread_cond_init "
            "pthread_cond_signal pthread_cond_timedwait pthread_cond_wait"
        ),
        # The _chk functions are what gcc calls for those without, by default on some systems.
        "GLIBC_2.3.4": (
            "__fprintf_chk __memcpy_chk __memmove_chk __memset_chk __printf_chk __snprintf_chk "
            "__sprintf_chk __strcat_chk __strcpy_chk __strncpy_chk __vfprintf_chk __vsnprintf_chk "
            "__xpg_strerror_r sched_getaffinity sched_setaffinity"
        ),
        "GLIBC_2.4": "__fgets_chk __read_chk __readlink_chk __stack_chk_fail openat",
        "GLIBC_2.6": "__sched_cpucount sched_getcpu",
        "GLIBC_2.7": (
            "__fread_chk __isoc99_fscanf __isoc99_sscanf __open_2 __sched_cpualloc __sched_cpufree"
        ),
        "GLIBC_2.14": "memcpy",
        "GLIBC_2.16": "__getauxval aligned_alloc getauxval",
        "GLIBC_2.17": "clock_gettime secure_getenv",
    },
    "ld-linux-x86-64.so.2": {"GLIBC_2.3": "__tls_get_addr"},
}
_LOADERS = {"ld-linux-x86-64.so.2": "ld-linux-aarch64.so.1"}


@dataclass(frozen=True, slots=True)
class Stub:
    """A library without code: the file name that the linker looks for, and what is in it."""

    soname: str
    functions: dict[str, tuple[str, ...]]
    """By version, the oldest first."""

    @property
    def file(self) -> str:
        """Its name on the linker's path: libm.so for libm.so.6; the loader's is its soname."""
        return self.soname if self.soname.startswith("ld-") else self.soname.split(".so")[0] + ".so"

    @property
    def assembly(self) -> str:
        """Source text: every function at one address, as nothing ever calls it here."""
        names = [name for group in self.functions.values() for name in group]
        marks = "".join(f".globl {name}\n.type {name}, %function\n{name}:\n" for name in names)
        return f'.text\n{marks}.byte 0\n.section .note.GNU-stack,"",%progbits\n'

    @property
    def version_script(self) -> str:
        """The linker's version script."""
        return "".join(
            f"{version} {{ global: {' '.join(f'{name};' for name in names)} }};\n"
            for version, names in self.functions.items()
        )


def stubs(architecture: str) -> Iterator[Stub]:
    """The libraries to link with; none for an architecture that is newer than FLOOR."""
    for soname, versions in _X86.items():
        if architecture == "x86_64":
            yield Stub(soname, {v: tuple(names.split()) for v, names in versions.items()})
        elif architecture == "aarch64":
            names = tuple(name for group in versions.values() for name in group.split())
            yield Stub(_LOADERS.get(soname, soname), {"GLIBC_2.17": names})
