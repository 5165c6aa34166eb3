using System.Runtime.InteropServices;
using static Vmm.Vhost.Native.BpfInstruction;

namespace Vmm.Vhost.Native.Confinement;

/// <summary>A list of the system calls that threads may still make (seccomp(2)), as a program for the kernel's classic BPF. A call that no
/// rule allows fails with EPERM.</summary>
/// <remarks>Fails and does not kill: what a managed runtime and the C library call is not all ours to know, and both go on without. Calls
/// that nothing here has a use for, and that break-ins begin with, are <see cref="Kill"/>ed by the caller's choice.</remarks>
public sealed unsafe partial class SeccompFilter
{
    private const uint Architecture = 0xC000003E;       // AUDIT_ARCH_X86_64 (linux/audit.h)
    private const uint X32Bit = 0x40000000;             // calls of the x32 interface, which have numbers of their own

    private const uint ReturnAllow = 0x7FFF0000, ReturnErrno = 0x00050000, ReturnKill = 0x80000000;   // linux/seccomp.h

    private const int NumberOffset = 0, ArchitectureOffset = 4, ArgumentsOffset = 16;   // struct seccomp_data
    private const int MaxBody = 250;                                                    // jumps have 8 bits
    private const int MaxInstructions = 4096;                                           // BPF_MAXINSNS

    private const uint Enosys = 38;

    private const uint SetModeFilter = 1, GetActionAvailable = 2, FlagAllThreads = 1;   // SECCOMP_FILTER_FLAG_TSYNC

    private readonly List<BpfInstruction> _program = [];

    /// <summary>A list that allows nothing yet.</summary>
    public SeccompFilter()
    {
        _program.Add(Load(ArchitectureOffset));
        _program.Add(new BpfInstruction(JumpEqual, 1, 0, Architecture));
        _program.Add(new BpfInstruction(Return, 0, 0, ReturnKill));
        _program.Add(Load(NumberOffset));
        _program.Add(new BpfInstruction(JumpGreaterEqual, 0, 1, X32Bit));
        _program.Add(new BpfInstruction(Return, 0, 0, ReturnKill));
    }

    /// <summary>Says 0 if the kernel has such filters, or the error number with which it refuses them.</summary>
    public static int Probe()
    {
        uint action = ReturnKill;
        // SAFETY: an integer on the stack, which the kernel reads.
        return SystemCall((nint)SystemCallNumber.Seccomp, GetActionAvailable, 0, &action) >= 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Allows what any of <paramref name="rules"/> allows.</summary>
    public SeccompFilter Allow(params IEnumerable<SystemCallRule> rules)
    {
        foreach (SystemCallRule rule in rules)
            AddRule(rule.Call, CollectionsMarshal.AsSpan(Body(rule, ReturnAllow)));
        return this;
    }

    /// <summary>Lets what any of <paramref name="rules"/> describes fail with EPERM, whatever is allowed later.</summary>
    public SeccompFilter Refuse(params IEnumerable<SystemCallRule> rules)
    {
        foreach (SystemCallRule rule in rules)
            AddRule(rule.Call, CollectionsMarshal.AsSpan(Body(rule, ReturnErrno | Errnos.Eperm)));
        return this;
    }

    /// <summary>Lets clone3(2) fail with ENOSYS: its arguments are in memory, out of sight. The C library goes back to clone(2).</summary>
    public SeccompFilter HideClone3()
    {
        AddRule(SystemCallNumber.Clone3, [new BpfInstruction(Return, 0, 0, ReturnErrno | Enosys)]);
        return this;
    }

    /// <summary>Lets <paramref name="calls"/> end the process by SIGSYS.</summary>
    public SeccompFilter Kill(params IEnumerable<SystemCallNumber> calls)
    {
        foreach (SystemCallNumber call in calls)
            AddRule(call, [new BpfInstruction(Return, 0, 0, ReturnKill)]);
        return this;
    }

    /// <summary>Puts the list in force, for good. It needs <see cref="ThreadPrivileges.GiveUpNewOnes"/> before.</summary>
    /// <param name="allThreads">For all threads of the process, or only for the calling one and those it starts.</param>
    /// <exception cref="ErrnoException">The kernel refused: nothing changed.</exception>
    public void Install(bool allThreads)
    {
        BpfInstruction[] program = [.. _program, new BpfInstruction(Return, 0, 0, ReturnErrno | Errnos.Eperm)];
        ArgumentOutOfRangeException.ThrowIfGreaterThan(program.Length, MaxInstructions, nameof(program));
        fixed (BpfInstruction* instructions = program)
        {
            var header = new BpfProgram { Length = (ushort)program.Length, Instructions = instructions };
            // SAFETY: the header is on the stack and the program pinned; the kernel copies both.
            nint result = SystemCall((nint)SystemCallNumber.Seccomp, SetModeFilter, allThreads ? FlagAllThreads : 0, &header);
            if (result < 0)
                throw new ErrnoException("seccomp(SECCOMP_SET_MODE_FILTER)", Marshal.GetLastPInvokeError());
            if (result > 0)
                throw new ErrnoException($"seccomp(SECCOMP_SET_MODE_FILTER): thread {result} has a filter of its own", Errnos.Ebusy);
        }
    }

    // Returns if all conditions hold; else it goes to its end, where the call's number is loaded again for the next rule.
    private static List<BpfInstruction> Body(SystemCallRule rule, uint result)
    {
        int end = 1 + rule.Conditions.Sum(condition => 1 + (condition.Mask == uint.MaxValue ? 0 : 1) + condition.Values.Count + (condition.IsWhole ? 2 : 0));
        var body = new List<BpfInstruction>();
        foreach (ArgumentCondition condition in rule.Conditions)
        {
            int offset = ArgumentsOffset + 8 * condition.Index;
            body.Add(Load(offset));
            if (condition.Mask != uint.MaxValue)
                body.Add(new BpfInstruction(And, 0, 0, condition.Mask));
            for (int left = condition.Values.Count - 1; left >= 0; left--)
            {
                // The one that is equal goes on behind those that are left; the last one that is not goes to the end.
                body.Add(new BpfInstruction(JumpEqual, (byte)left, left == 0 ? ToEnd() : (byte)0, condition.Values[^(left + 1)]));
            }
            if (condition.IsWhole)
            {
                body.Add(Load(offset + 4));
                body.Add(new BpfInstruction(JumpEqual, 0, ToEnd(), 0));
            }
        }
        body.Add(new BpfInstruction(Return, 0, 0, result));
        if (rule.Conditions.Count > 0)
            body.Add(Load(NumberOffset));
        return body;

        byte ToEnd() => checked((byte)(end - body.Count - 1));
    }

    private void AddRule(SystemCallNumber call, ReadOnlySpan<BpfInstruction> body)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(body.Length, MaxBody, nameof(body));
        // Every body ends with a return, or with the call's number loaded for the next rule.
        _program.Add(new BpfInstruction(JumpEqual, 0, (byte)body.Length, (uint)call));
        _program.AddRange(body);
    }

    private static BpfInstruction Load(int offset) => new(LoadWord, 0, 0, (uint)offset);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint SystemCall(nint number, uint operation, uint flags, void* argument);
}
