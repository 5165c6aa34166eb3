using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>A list of the system calls that threads may still make (seccomp(2)), as a program for the kernel's classic BPF. A call that is
/// not listed fails with EPERM; the first rule for a call counts.</summary>
/// <remarks>Fails and does not kill: what a managed runtime and the C library call is not all ours to know, and both go on without. Calls
/// that nothing here has a use for, and that break-ins begin with, are <see cref="Kill"/>ed by the caller's choice.</remarks>
public sealed unsafe partial class SeccompFilter
{
    private const uint Architecture = 0xC000003E;       // AUDIT_ARCH_X86_64 (linux/audit.h)
    private const uint X32Bit = 0x40000000;             // calls of the x32 interface, which have numbers of their own

    private const uint ReturnAllow = 0x7FFF0000, ReturnErrno = 0x00050000, ReturnKill = 0x80000000;   // linux/seccomp.h

    private const ushort LoadWord = 0x20, JumpEqual = 0x15, JumpGreaterEqual = 0x35, And = 0x54, Return = 0x06;   // linux/bpf_common.h

    private const int NumberOffset = 0, ArchitectureOffset = 4, ArgumentsOffset = 16;   // struct seccomp_data
    private const int MaxBody = 250;                                                    // jumps have 8 bits
    private const int MaxInstructions = 4096;                                           // BPF_MAXINSNS

    private const uint SetModeFilter = 1, FlagAllThreads = 1;                           // SECCOMP_FILTER_FLAG_TSYNC

    private readonly List<Instruction> _program = [];

    /// <summary>A list that allows nothing yet.</summary>
    public SeccompFilter()
    {
        _program.Add(Load(ArchitectureOffset));
        _program.Add(new Instruction(JumpEqual, 1, 0, Architecture));
        _program.Add(new Instruction(Return, 0, 0, ReturnKill));
        _program.Add(Load(NumberOffset));
        _program.Add(new Instruction(JumpGreaterEqual, 0, 1, X32Bit));
        _program.Add(new Instruction(Return, 0, 0, ReturnKill));
    }

    /// <summary>Allows <paramref name="calls"/>, whatever their arguments.</summary>
    public SeccompFilter Allow(params ReadOnlySpan<SystemCallNumber> calls)
    {
        foreach (SystemCallNumber call in calls)
            AddRule(call, [new Instruction(Return, 0, 0, ReturnAllow)]);
        return this;
    }

    /// <summary>Allows <paramref name="call"/> where its argument <paramref name="index"/> is one of <paramref name="values"/>; otherwise
    /// it fails with EPERM.</summary>
    public SeccompFilter AllowWhere(SystemCallNumber call, int index, params ReadOnlySpan<uint> values)
    {
        // The kernel takes these arguments as 32 bits wide (int, unsigned int): the upper half does not matter to it.
        var body = new List<Instruction> { Load(ArgumentsOffset + 8 * index) };
        foreach (uint value in values)
        {
            body.Add(new Instruction(JumpEqual, 0, 1, value));
            body.Add(new Instruction(Return, 0, 0, ReturnAllow));
        }
        body.Add(new Instruction(Return, 0, 0, ReturnErrno | Errnos.Eperm));
        AddRule(call, CollectionsMarshal.AsSpan(body));
        return this;
    }

    /// <summary>Allows <paramref name="call"/> where of its argument <paramref name="index"/> the bits in <paramref name="mask"/> are
    /// <paramref name="value"/>; otherwise it fails with EPERM.</summary>
    public SeccompFilter AllowWhereBits(SystemCallNumber call, int index, uint mask, uint value)
    {
        AddRule(call,
        [
            Load(ArgumentsOffset + 8 * index),
            new Instruction(And, 0, 0, mask),
            new Instruction(JumpEqual, 0, 1, value),
            new Instruction(Return, 0, 0, ReturnAllow),
            new Instruction(Return, 0, 0, ReturnErrno | Errnos.Eperm),
        ]);
        return this;
    }

    /// <summary>Lets <paramref name="call"/> fail with <paramref name="errno"/>.</summary>
    public SeccompFilter Fail(SystemCallNumber call, int errno)
    {
        AddRule(call, [new Instruction(Return, 0, 0, ReturnErrno | (uint)errno)]);
        return this;
    }

    /// <summary>Lets <paramref name="calls"/> end the process by SIGSYS.</summary>
    public SeccompFilter Kill(params ReadOnlySpan<SystemCallNumber> calls)
    {
        foreach (SystemCallNumber call in calls)
            AddRule(call, [new Instruction(Return, 0, 0, ReturnKill)]);
        return this;
    }

    /// <summary>Puts the list in force, for good. It needs <see cref="ProcessPrivileges.GiveUpNewOnes"/> before.</summary>
    /// <param name="allThreads">For all threads of the process, or only for the calling one and those it starts.</param>
    /// <exception cref="ErrnoException">The kernel refused: nothing changed.</exception>
    public void Install(bool allThreads)
    {
        Instruction[] program = [.. _program, new Instruction(Return, 0, 0, ReturnErrno | Errnos.Eperm)];
        ArgumentOutOfRangeException.ThrowIfGreaterThan(program.Length, MaxInstructions, nameof(program));
        fixed (Instruction* instructions = program)
        {
            var header = new ProgramHeader { Length = (ushort)program.Length, Instructions = instructions };
            // SAFETY: the header is on the stack and the program pinned; the kernel copies both.
            nint result = SystemCall((nint)SystemCallNumber.Seccomp, SetModeFilter, allThreads ? FlagAllThreads : 0, &header);
            if (result < 0)
                throw new ErrnoException("seccomp(SECCOMP_SET_MODE_FILTER)", Marshal.GetLastPInvokeError());
            if (result > 0)
                throw new ErrnoException($"seccomp(SECCOMP_SET_MODE_FILTER): thread {result} has a filter of its own", Errnos.Ebusy);
        }
    }

    private void AddRule(SystemCallNumber call, ReadOnlySpan<Instruction> body)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(body.Length, MaxBody, nameof(body));
        // Every body ends with a return: the call's number is still loaded for the next rule.
        _program.Add(new Instruction(JumpEqual, 0, (byte)body.Length, (uint)call));
        _program.AddRange(body);
    }

    private static Instruction Load(int offset) => new(LoadWord, 0, 0, (uint)offset);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint SystemCall(nint number, uint operation, uint flags, ProgramHeader* program);

    // struct sock_filter and sock_fprog of linux/filter.h.
    private readonly record struct Instruction(ushort Code, byte IfTrue, byte IfFalse, uint Operand);

    private struct ProgramHeader
    {
        public ushort Length;
        public Instruction* Instructions;
    }
}
