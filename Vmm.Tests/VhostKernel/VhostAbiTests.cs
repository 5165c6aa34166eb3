using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native;

namespace Vmm.Tests.VhostKernel;

/// <summary>Compares what Vmm.Vhost.Kernel declares with the kernel's headers; what they are too old for, with the numbers that newer
/// ones have.</summary>
public partial class VhostAbiTests
{
    private static readonly Type[] s_structures =
    [
        typeof(VhostVringState), typeof(VhostVringFile), typeof(VhostVringAddr), typeof(VhostMemory), typeof(VhostMemoryRegion),
        typeof(VhostIotlbMsg), typeof(VhostMsgV2), typeof(VhostScsiTarget), typeof(VhostVdpaConfig), typeof(VhostVdpaIovaRange),
    ];

    private static FieldInfo[] Requests => typeof(VhostIoctls).GetFields(BindingFlags.Static | BindingFlags.Public);

    [Test]
    public void Declarations_AgainstKernelHeaders_AreTheSame()
    {
        var c = new StringBuilder("#include <stddef.h>\n#include <linux/vhost.h>\n");
        int assertions = 0;
        void Check(string condition, string name)
        {
            c.Append($"_Static_assert({condition}, \"{name}\");\n");
            assertions++;
        }

        foreach (FieldInfo field in Requests)
        {
            var request = (IoctlRequest)field.GetValue(null)!;
            Assert.That(request.Name, Is.EqualTo("VHOST_" + CName(field.Name).ToUpperInvariant()));
            c.Append($"#ifdef {request.Name}\n");
            Check($"{request.Name} == {request.Number}u", request.Name);
            c.Append("#endif\n");
        }
        foreach (Type type in s_structures)
        {
            string name = type == typeof(VhostMsgV2) ? "vhost_msg_v2" : CName(type.Name);
            Check($"sizeof(struct {name}) == {SizeOf(type)}", name);
            foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.Public))
            {
                if (type != typeof(VhostMsgV2) || field.Name != nameof(VhostMsgV2.Padding))
                    Check($"offsetof(struct {name}, {CName(field.Name)}) == {Marshal.OffsetOf(type, field.Name)}", $"{name}.{field.Name}");
            }
        }
        Check($"VHOST_ACCESS_RW == {VhostIotlbMsg.AccessReadWrite}", "VHOST_ACCESS_RW");
        Check($"VHOST_IOTLB_UPDATE == {VhostIotlbMsg.Update}", "VHOST_IOTLB_UPDATE");
        Check($"VHOST_IOTLB_INVALIDATE == {VhostIotlbMsg.Invalidate}", "VHOST_IOTLB_INVALIDATE");
        Check($"VHOST_IOTLB_BATCH_BEGIN == {VhostIotlbMsg.BatchBegin}", "VHOST_IOTLB_BATCH_BEGIN");
        Check($"VHOST_IOTLB_BATCH_END == {VhostIotlbMsg.BatchEnd}", "VHOST_IOTLB_BATCH_END");
        Check($"VHOST_IOTLB_MSG_V2 == {VhostMsgV2.IotlbMessage}", "VHOST_IOTLB_MSG_V2");
        Check($"VHOST_FILE_UNBIND == {VhostVringFile.Unbind}", "VHOST_FILE_UNBIND");
        Check($"VHOST_SCSI_ABI_VERSION == {VhostScsiTarget.CurrentAbi}", "VHOST_SCSI_ABI_VERSION");
        Check($"1ull << VHOST_BACKEND_F_IOTLB_MSG_V2 == {VhostBackendFeatures.IotlbMsgV2}", "VHOST_BACKEND_F_IOTLB_MSG_V2");
        Check($"1ull << VHOST_BACKEND_F_IOTLB_BATCH == {VhostBackendFeatures.IotlbBatch}", "VHOST_BACKEND_F_IOTLB_BATCH");
        c.Append("#ifdef VHOST_BACKEND_F_SUSPEND\n");
        Check($"1ull << VHOST_BACKEND_F_SUSPEND == {VhostBackendFeatures.Suspend}", "VHOST_BACKEND_F_SUSPEND");
        c.Append("#endif\n");
        CCompiler.Check(c.ToString());
        Assert.That(assertions, Is.GreaterThan(90));
    }

    // Those that came after Linux 6.1, from the header of Linux 6.18.
    [TestCase(nameof(VhostIoctls.NewWorker), 0x8004AF08)]
    [TestCase(nameof(VhostIoctls.FreeWorker), 0x4004AF09)]
    [TestCase(nameof(VhostIoctls.AttachVringWorker), 0x4008AF15)]
    [TestCase(nameof(VhostIoctls.GetVringWorker), 0xC008AF16)]
    [TestCase(nameof(VhostIoctls.VdpaResume), 0x0000AF7E)]
    [TestCase(nameof(VhostIoctls.VdpaGetVringDescGroup), 0xC008AF7F)]
    [TestCase(nameof(VhostIoctls.VdpaGetVringSize), 0xC008AF82)]
    [TestCase(nameof(VhostIoctls.GetFeaturesArray), 0x8008AF83)]
    [TestCase(nameof(VhostIoctls.SetFeaturesArray), 0x4008AF83)]
    [TestCase(nameof(VhostIoctls.SetForkFromOwner), 0x4001AF84)]
    [TestCase(nameof(VhostIoctls.GetForkFromOwner), 0x8001AF85)]
    public void Request_NewerThanTheHeaders_HasItsNumber(string field, long number) =>
        Assert.That(((IoctlRequest)Requests.Single(request => request.Name == field).GetValue(null)!).Number, Is.EqualTo((uint)number));

    private static string CName(string name) => WordStart().Replace(name, "_$1").ToLowerInvariant();

    private static int SizeOf(Type type) => (int)typeof(Unsafe).GetMethod("SizeOf")!.MakeGenericMethod(type).Invoke(null, null)!;

    [GeneratedRegex("(?<=[a-z0-9])([A-Z])")]
    private static partial Regex WordStart();
}
