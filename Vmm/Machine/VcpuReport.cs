using System.Globalization;
using System.Text;
using Vmm.Kvm;

namespace Vmm.Machine;

/// <summary>A vCPU's state in words, for when it cannot go on.</summary>
internal static class VcpuReport
{
    private const ulong ResetRip = 0xfff0;      // after a reset or INIT

    /// <summary>The reason of an exit that nothing here handles, with its details.</summary>
    public static string Reason(ref readonly KvmRun exit) => exit.ExitReason switch
    {
        KvmExitReason.InternalError => $"KVM_EXIT_INTERNAL_ERROR, suberror {exit.InternalSuberror}" + exit.InternalSuberror switch
        {
            1 => " (an instruction that KVM cannot emulate)",
            2 => " (a second exit while one was being handled)",
            3 => " (an exception while an event was being delivered)",
            4 => " (an exit that KVM does not know)",
            _ => "",
        },
        KvmExitReason.FailEntry => $"KVM_EXIT_FAIL_ENTRY, hardware reason 0x{exit.HardwareReason:x}: the processor refused the guest's state",
        KvmExitReason.Unknown => $"KVM_EXIT_UNKNOWN, hardware reason 0x{exit.HardwareReason:x}",
        _ => $"exit reason {(uint)exit.ExitReason} ({exit.ExitReason}), which this VMM does not use",
    };

    /// <summary>Where the vCPU is, in a few words.</summary>
    public static string Place(KvmVcpu vcpu)
    {
        KvmSregs sregs = vcpu.GetSregs();
        return Place(vcpu.GetRegs().Rip, sregs.Cr2, sregs.Cr3);
    }

    // KVM resets an AMD processor before it tells of the shutdown: the control block is undefined then (Linux arch/x86/kvm/svm/svm.c,
    // shutdown_interception).
    internal static string Place(ulong rip, ulong cr2, ulong cr3) => rip == ResetRip && cr3 == 0
        ? "an address that KVM does not tell (it resets an AMD processor first)"
        : $"rip 0x{rip:x}, cr2 0x{cr2:x}, cr3 0x{cr3:x}";

    /// <summary>The registers, a few to a line.</summary>
    public static string Registers(KvmVcpu vcpu)
    {
        try
        {
            KvmRegs r = vcpu.GetRegs();
            KvmSregs s = vcpu.GetSregs();
            var text = new StringBuilder();
            Line(text, ("rip", r.Rip), ("rflags", r.Rflags), ("rsp", r.Rsp), ("rbp", r.Rbp));
            Line(text, ("rax", r.Rax), ("rbx", r.Rbx), ("rcx", r.Rcx), ("rdx", r.Rdx));
            Line(text, ("rsi", r.Rsi), ("rdi", r.Rdi), ("r8", r.R8), ("r9", r.R9));
            Line(text, ("r10", r.R10), ("r11", r.R11), ("r12", r.R12), ("r13", r.R13));
            Line(text, ("r14", r.R14), ("r15", r.R15), ("efer", s.Efer), ("apic", s.ApicBase));
            Line(text, ("cr0", s.Cr0), ("cr2", s.Cr2), ("cr3", s.Cr3), ("cr4", s.Cr4));
            Line(text, ("cs", s.Cs.Selector), ("ds", s.Ds.Selector), ("ss", s.Ss.Selector), ("tr", s.Tr.Selector));
            Line(text, ("gdt", s.Gdt.Base), ("idt", s.Idt.Base), ("fs", s.Fs.Base), ("gs", s.Gs.Base));
            return text.ToString().TrimEnd();
        }
        catch (IOException e)
        {
            return $"  registers unknown: {e.Message}";
        }
    }

    private static void Line(StringBuilder text, params ReadOnlySpan<(string Name, ulong Value)> registers)
    {
        foreach ((string name, ulong value) in registers)
            text.Append(CultureInfo.InvariantCulture, $"  {name,-6} {value:x16}");
        text.Append('\n');
    }
}
