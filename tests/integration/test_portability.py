"""The binaries run on any x86-64: only functions chosen at run time are compiled for more than the
plainest, and a picture is the same one on lesser processors (qemu-user, which has no AVX-512) and
with the BLAS kernels of others. The release build is checked, whatever MODE is."""

import os
import platform
import re
import shutil
import subprocess

import pytest
from PIL import Image, ImageChops, ImageStat

from support.processes import TREE

BIN = TREE / "build/bin"
OBJECTS = TREE / "build/release"
MODEL = TREE / "tests/golden/tiny-sdxl"
PICTURE_DECIBEL = 45.0  # as in tests/parity

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="about x86-64")

# Modules whose functions are for more than the plain processor and whose callers ask for it first.
ASKED_FOR = {"attention_avx512", "gemm_avx512", "product_tile"}
CLONE = "arch_x86_64_v"  # target_clones: the loader chooses
FUNCTION = re.compile(r"[0-9a-f]+ <(.*)>:")
INSTRUCTION = re.compile(r"\s+[0-9a-f]+:\s+(?:(?:lock|rep\w*|bnd|notrack|data16)\s+)*(\S+)")
# AVX and AVX-512 (v...), BMI, and what came with SSE3 to SSE4.2.
NEWER = re.compile(
    r"(v(?!err|erw)\w+|andn|bextr|bls\w+|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|popcnt|lzcnt|movbe"
    r"|phadd\w+|phsub\w+|pshufb|pabs\w|psign\w|palignr|pmulhrsw|pmaddubsw|pm(in|ax)(sb|sd|u[wd])"
    r"|pmul(ld|dq)|p?blend\w+|p(ins|ext)r[bdq]|pmov[sz]x\w+|ptest|pcmp(eqq|gtq|[ei]str\w)|packusdw"
    r"|round[sp][sd]|dpp[sd]|aes\w+|sha\d\w+|crc32\w*|extractps|insertps|addsub\w+|h(add|sub)p\w"
    r"|movddup|movs[hl]dup|lddqu|k(mov|and|or|x|not|shift|test|unpck)\w+)")


def newer_instructions(binary):
    """Functions with an instruction that not every processor has."""
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", binary], check=True,
                             capture_output=True, text=True).stdout
    function, found = "", {}
    for line in listing.splitlines():
        if match := FUNCTION.match(line):
            function = match.group(1)
        elif (match := INSTRUCTION.match(line)) and NEWER.fullmatch(match.group(1)):
            found.setdefault(function, match.group(1))
    return found


def product_objects():
    """What the release build made of the product's sources that are there."""
    for path in sorted(OBJECTS.rglob("*.o")):
        source = path.relative_to(OBJECTS).with_suffix(".c")
        if source.parts[0] != "tests" and (TREE / source).exists():
            yield path


def test_only_functions_chosen_at_run_time_ask_for_more_than_the_plain_processor():
    found = {path.stem: newer_instructions(path) for path in product_objects()}
    assert len(found) > 200
    for module in ASKED_FOR:
        assert found.pop(module), f"{module} has nothing special: it needs no exception"
    wrong = {f"{module}.c: {function}": instruction for module, functions in found.items()
             for function, instruction in functions.items() if CLONE not in function}
    assert wrong == {}
    # The look itself finds something.
    assert any(CLONE in function for functions in found.values() for function in functions)


def draw(output, emulator=(), options=(), **environment):
    done = subprocess.run(
        [*emulator, BIN / "txt2img", "--model", MODEL, "--prompt", "a sword", "--seed", "5",
         "--steps", "2", "--width", "32", "--height", "32", "--output", output, *options],
        cwd=TREE, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
        check=False)
    assert done.returncode == 0, done.stderr
    return Image.open(output)


def squared_error(one, other):
    sums = ImageStat.Stat(ImageChops.difference(one, other))
    return sum(sums.sum2) / (3 * one.width * one.height)


def assert_same_picture(picture, reference):
    assert ImageStat.Stat(reference).stddev[0] > 5, "a picture of one colour shows nothing"
    assert squared_error(picture, reference) <= 255 ** 2 / 10 ** (PICTURE_DECIBEL / 10)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("reference") / "picture.png")


def processor_has(flag):
    with open("/proc/cpuinfo", encoding="ascii") as file:
        return re.search(rf"^flags\s*:.*\b{flag}\b", file.read(), re.MULTILINE) is not None


@pytest.mark.parametrize("core, flag", [("Prescott", "pni"), ("Nehalem", "sse4_2"),
                                        ("Haswell", "avx2"), ("Zen", "avx2"),
                                        ("SkylakeX", "avx512vl")])
def test_a_picture_is_the_same_with_the_blas_kernels_of(core, flag, reference, tmp_path):
    if not processor_has(flag):
        pytest.skip(f"this processor has no {flag}")
    assert_same_picture(draw(tmp_path / "picture.png", OPENBLAS_CORETYPE=core), reference)


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_a_picture_is_the_same_with_our_instructions_limited_to(isa, reference, tmp_path):
    assert_same_picture(draw(tmp_path / "picture.png", CRAFTERSE_MAX_CPU_ISA=isa), reference)


def test_int8_gives_the_same_picture_whichever_instructions_it_finds(tmp_path):
    if not (processor_has("avx_vnni") and processor_has("avx512_vnni")):
        pytest.skip("this processor has not both AVX-VNNI and AVX512-VNNI")
    narrow, wide = (draw(tmp_path / f"{isa}.png", options=["--precision", "int8"],
                         CRAFTERSE_MAX_CPU_ISA=isa) for isa in ("avx-vnni", "avx512-vnni"))
    assert_same_picture(narrow, wide)


# qemu64 is the plainest there is: SSE3, of AMD's family 15 but without its 3DNow. Haswell runs the
# AVX2 clones, which a processor with AVX-512 never does.
@pytest.mark.parametrize("processor", ["qemu64", "Haswell"])
def test_a_picture_is_the_same_on_a(processor, reference, tmp_path):
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("needs qemu-x86_64 (Debian: qemu-user)")
    emulator = ["qemu-x86_64", "-cpu", processor]
    assert_same_picture(draw(tmp_path / "picture.png", emulator), reference)
