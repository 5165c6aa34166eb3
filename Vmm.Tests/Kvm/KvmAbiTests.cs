using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using NUnit.Framework;
using Vmm.Kvm;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Kvm;

/// <summary>Compares what Vmm.Kvm declares with the kernel's own headers, by compiling C assertions.</summary>
public partial class KvmAbiTests
{
    // Structures that are named and laid out field by field as in C, apart from the names listed with them.
    private static readonly (Type Type, string Name, string[] Renamed)[] s_structures =
    [
        (typeof(KvmUserspaceMemoryRegion), "kvm_userspace_memory_region", ["GuestPhysAddr=guest_phys_addr"]),
        (typeof(KvmPitConfig), "kvm_pit_config", []),
        (typeof(KvmIrqfd), "kvm_irqfd", ["ResampleFd=resamplefd", "Pad0=pad", "Pad1="]),
        (typeof(KvmEnableCap), "kvm_enable_cap", ["Arg0=args", "Arg1=", "Arg2=", "Arg3="]),
        (typeof(KvmIrqRouting), "kvm_irq_routing", []),
        (typeof(KvmIrqRoutingEntry), "kvm_irq_routing_entry", ["AddressLo=u.msi.address_lo", "AddressHi=u.msi.address_hi", "Data=u.msi.data", "Rest=u.msi.devid"]),
        (typeof(KvmIoeventfd), "kvm_ioeventfd", []),
        (typeof(KvmRegs), "kvm_regs", []),
        (typeof(KvmSegment), "kvm_segment", []),
        (typeof(KvmDtable), "kvm_dtable", ["Padding0=padding", "Padding1=", "Padding2="]),
        (typeof(KvmSregs), "kvm_sregs", ["InterruptBitmap0=interrupt_bitmap", "InterruptBitmap1=", "InterruptBitmap2=", "InterruptBitmap3="]),
        (typeof(KvmFpu), "kvm_fpu", ["LastOpcode=last_opcode"]),
        (typeof(KvmLapicState), "kvm_lapic_state", []),
        (typeof(KvmMpState), "kvm_mp_state", ["State=mp_state"]),
        (typeof(KvmMsrEntry), "kvm_msr_entry", []),
        (typeof(KvmCpuidEntry2), "kvm_cpuid_entry2", ["Padding0=padding", "Padding1=", "Padding2="]),
        (typeof(KvmMsrs), "kvm_msrs", ["Count=nmsrs"]),
        (typeof(KvmCpuid2), "kvm_cpuid2", ["Count=nent"]),
    ];

    // struct kvm_run has unions: its fields by hand.
    private static readonly (string Field, string CPath)[] s_run =
    [
        (nameof(KvmRun.ImmediateExit), "immediate_exit"),
        (nameof(KvmRun.ExitReason), "exit_reason"),
        (nameof(KvmRun.IoDirection), "io.direction"),
        (nameof(KvmRun.IoSize), "io.size"),
        (nameof(KvmRun.IoPort), "io.port"),
        (nameof(KvmRun.IoCount), "io.count"),
        (nameof(KvmRun.IoDataOffset), "io.data_offset"),
        (nameof(KvmRun.MmioPhysAddr), "mmio.phys_addr"),
        (nameof(KvmRun.MmioData), "mmio.data"),
        (nameof(KvmRun.MmioLength), "mmio.len"),
        (nameof(KvmRun.MmioIsWrite), "mmio.is_write"),
        (nameof(KvmRun.HardwareReason), "fail_entry.hardware_entry_failure_reason"),
        (nameof(KvmRun.InternalSuberror), "internal.suberror"),
        (nameof(KvmRun.SystemEventType), "system_event.type"),
    ];

    [Test]
    public void Declarations_AgainstKernelHeaders_AreTheSame()
    {
        var c = new StringBuilder("#include <stddef.h>\n#include <linux/kvm.h>\n");
        int assertions = 0;
        void Assert(string condition, string name)
        {
            c.Append($"_Static_assert({condition}, \"{name}\");\n");
            assertions++;
        }

        // A header older than the constant says nothing about it.
        void AssertConstant(string name, int value)
        {
            c.Append($"#ifdef {name}\n");
            Assert($"{name} == {value}", name);
            c.Append("#endif\n");
        }

        foreach (FieldInfo field in typeof(KvmIoctls).GetFields(BindingFlags.Static | BindingFlags.Public))
        {
            var request = (IoctlRequest)field.GetValue(null)!;
            Assert($"{request.Name} == {request.Number}u", request.Name);
        }
        foreach ((Type type, string name, string[] renamed) in s_structures)
        {
            Assert($"sizeof(struct {name}) == {SizeOf(type)}", name);
            foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.Public))
            {
                string member = renamed.FirstOrDefault(r => r.StartsWith(field.Name + "=", StringComparison.Ordinal))?.Split('=')[1]
                    ?? WordStart().Replace(field.Name, "_$1").ToLowerInvariant();
                if (member.Length > 0)
                    Assert($"offsetof(struct {name}, {member}) == {Marshal.OffsetOf(type, field.Name)}", $"{name}.{member}");
            }
        }
        foreach ((string field, string path) in s_run)
            Assert($"offsetof(struct kvm_run, {path}) == {Marshal.OffsetOf<KvmRun>(field)}", $"kvm_run.{path}");
        Assert($"KVM_IRQ_ROUTING_MSI == {KvmIrqRoutingEntry.Msi}", "KVM_IRQ_ROUTING_MSI");
        AssertConstant("KVM_PMU_CAP_DISABLE", KvmEnableCap.DisablePmu);
        Assert("offsetof(struct kvm_signal_mask, sigset) == 4", "kvm_signal_mask");
        foreach (KvmExitReason reason in Enum.GetValues<KvmExitReason>())
            AssertConstant(CName("KVM_EXIT_", reason.ToString()), (int)reason);
        foreach (KvmSystemEvent systemEvent in Enum.GetValues<KvmSystemEvent>())
            AssertConstant(CName("KVM_SYSTEM_EVENT_", systemEvent.ToString()), (int)systemEvent);
        foreach (FieldInfo field in typeof(KvmCapability).GetFields(BindingFlags.Static | BindingFlags.Public))
        {
            var capability = (KvmCapability)field.GetValue(null)!;
            AssertConstant(capability.Name, capability.Number);
        }
        CCompiler.Check(c.ToString());
        NUnit.Framework.Assert.That(assertions, Is.GreaterThan(100));
    }

    private static string CName(string prefix, string name) => name switch
    {
        nameof(KvmExitReason.HyperV) => "KVM_EXIT_HYPERV",
        _ => prefix + WordStart().Replace(name, "_$1").ToUpperInvariant(),
    };

    private static int SizeOf(Type type) =>
        (int)typeof(System.Runtime.CompilerServices.Unsafe).GetMethod("SizeOf")!.MakeGenericMethod(type).Invoke(null, null)!;

    [GeneratedRegex("(?<=[a-z0-9])([A-Z])")]
    private static partial Regex WordStart();
}
