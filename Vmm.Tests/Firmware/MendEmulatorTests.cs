using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Firmware;

/// <summary>firmware/kvm-host/mend-emulator changes three instructions of the emulator's copy, or nothing at all.</summary>
public class MendEmulatorTests
{
    // The statements of helper_vmrun and do_vmexit, as gcc writes them: a member of CPUState stands before the processor's state, which %rbx is.
    private const string Deliver = "mov %esi,-0x10ac(%rbx); movl $0,0x3384(%rbx); movq $-1,0x3388(%rbx); mov $1,%edx; call do_interrupt_x86_hardirq\n";
    private const string Set = "orl $0x100,-0x12d8(%rbx)\n";
    private const string Clear = "andl $0xfffffeff,-0x12d8(%rbx)\n";

    private string _directory = "";

    [SetUp]
    public void CreateDirectory() => _directory = Directory.CreateTempSubdirectory("vmm-test-").FullName;

    [TearDown]
    public void DeleteDirectory() => Directory.Delete(_directory, recursive: true);

    [Test]
    public void Mend_TheThreePlaces_ChangesThemInTheCopyOnly()
    {
        string emulator = Build(Set + "nop\n" + Deliver + Clear + "ret\n");
        byte[] before = File.ReadAllBytes(emulator);

        (int status, string said, byte[]? copy) = Mend(emulator);

        Assert.That(status, Is.Zero, said);
        Assert.That(File.ReadAllBytes(emulator), Is.EqualTo(before));
        Assert.That(copy, Has.Length.EqualTo(before.Length));
        // What the assembler makes of the mended statements. The call may be anywhere, so it is left out.
        byte[] expected = Assemble("""
            lock orb $1,-0x12d7(%rbx); nop; nop
            nop
            .byte 0x66,0x0f,0x1f,0x44,0x00,0x00   # nopw 0(%rax,%rax,1)
            movl $0,0x3384(%rbx); movq $-1,0x3388(%rbx); mov $1,%edx

            """);
        int place = copy.AsSpan().IndexOf(expected);
        Assert.That(place, Is.Not.Negative);
        byte[] cleared = Assemble("lock andb $0xfe,-0x12d7(%rbx); nop; nop; ret\n");
        const int callLength = 5;
        Assert.That(copy.AsSpan(place + expected.Length + callLength, cleared.Length).ToArray(), Is.EqualTo(cleared));
        int[] changed = [.. Enumerable.Range(0, before.Length).Where(i => before[i] != copy![i])];
        Assert.That(changed, Has.All.InRange(place, place + expected.Length + callLength + cleared.Length));
    }

    [TestCase("delivers twice", Deliver + Deliver + Set + Clear)]
    [TestCase("stores no index", "movl $0,0x3384(%rbx); movq $-1,0x3388(%rbx); call do_interrupt_x86_hardirq\n" + Set + Clear)]
    [TestCase("another base", "mov %esi,-0x10ac(%rcx); movl $0,0x3384(%rbx); movq $-1,0x3388(%rbx); call do_interrupt_x86_hardirq\n" + Set + Clear)]
    [TestCase("another function", "mov %esi,-0x10ac(%rbx); movl $0,0x3384(%rbx); movq $-1,0x3388(%rbx); call other\n" + Set + Clear)]
    [TestCase("other members", "mov %esi,-0x10ac(%rbx); movl $0,0x3384(%rbx); movq $-1,0x33a8(%rbx); call do_interrupt_x86_hardirq\n" + Set + Clear)]
    [TestCase("sets in two places", Deliver + Set + Set + Clear)]
    [TestCase("clears nowhere", Deliver + Set)]
    [TestCase("clears another member", Deliver + Set + "andl $0xfffffeff,-0x12d0(%rbx)\n")]
    public void Mend_NotExactlyThePlaces_Refuses(string what, string code)
    {
        (int status, string said, byte[]? copy) = Mend(Build(code + "ret\n"));

        Assert.That(status, Is.Not.Zero, what);
        Assert.That(copy, Is.Null);
        Assert.That(said.Trim().Split('\n'), Has.Length.EqualTo(1));
        Assert.That(said, Does.Contain("stays as it is"));
    }

    [Test]
    public void Mend_NoElfFile_Refuses()
    {
        string text = Path.Combine(_directory, "text");
        File.WriteAllText(text, "#!/bin/sh\n");

        (int status, string said, byte[]? copy) = Mend(text);

        Assert.That(status, Is.Not.Zero);
        Assert.That(copy, Is.Null);
        Assert.That(said, Does.Contain("no x86-64 ELF file"));
    }

    // An emulator in the small: a library whose dynamic symbols have the function that is called.
    private string Build(string code)
    {
        string source = Path.Combine(_directory, "emulator.s"), emulator = Path.Combine(_directory, "emulator");
        File.WriteAllText(source, $"""
            .globl do_interrupt_x86_hardirq
            .type do_interrupt_x86_hardirq,@function
            .text
            helper_vmrun:
            {code}
            do_interrupt_x86_hardirq: ret
            other: ret

            """);
        (int status, string said) = Run("gcc", "-shared", "-nostdlib", "-Wl,-Bsymbolic", "-o", emulator, source);
        Assert.That(status, Is.Zero, said);
        return emulator;
    }

    private byte[] Assemble(string code)
    {
        string source = Path.Combine(_directory, "code.s"), machine = Path.Combine(_directory, "code");
        File.WriteAllText(source, code);
        (int status, string said) = Run("/bin/sh", "-c", $"gcc -c -o '{machine}.o' '{source}' && objcopy -O binary -j .text '{machine}.o' '{machine}'");
        Assert.That(status, Is.Zero, said);
        return File.ReadAllBytes(machine);
    }

    private (int Status, string Said, byte[]? Copy) Mend(string emulator)
    {
        string copy = Path.Combine(_directory, "copy");
        (int status, string said) = Run(RepositoryRoot.Combine("firmware", "kvm-host", "mend-emulator"), emulator, copy);
        return (status, said, File.Exists(copy) ? File.ReadAllBytes(copy) : null);
    }

    private static (int Status, string Said) Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", "exec \"$0\" \"$@\" 2>&1", program, .. arguments])
        {
            RedirectStandardOutput = true,
        })!;
        string said = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, said);
    }
}
