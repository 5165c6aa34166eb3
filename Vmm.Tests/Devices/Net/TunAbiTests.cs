using System.Runtime.CompilerServices;
using System.Text;
using NUnit.Framework;
using Vmm.Devices.Net;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Devices.Net;

/// <summary>Compares TunAbi with the kernel's headers, by compiling C assertions.</summary>
public class TunAbiTests
{
    [Test]
    public void Declarations_AgainstKernelHeaders_AreTheSame()
    {
        var c = new StringBuilder("#include <stddef.h>\n#include <net/if.h>\n#include <sys/ioctl.h>\n#include <linux/if_tun.h>\n#include <linux/sockios.h>\n");
        foreach ((string name, long value) in new (string, long)[]
        {
            ("IFF_TAP", TunAbi.IffTap), ("IFF_NO_PI", TunAbi.IffNoPi), ("IFF_VNET_HDR", TunAbi.IffVnetHdr), ("IFF_MULTI_QUEUE", TunAbi.IffMultiQueue),
            ("IFF_ATTACH_QUEUE", TunAbi.IffAttachQueue), ("IFF_DETACH_QUEUE", TunAbi.IffDetachQueue), ("IFF_UP", TunAbi.IffUp),
            ("TUN_F_CSUM", TunAbi.TunFCsum), ("TUN_F_TSO4", TunAbi.TunFTso4), ("TUN_F_TSO6", TunAbi.TunFTso6),
            ("TUN_F_TSO_ECN", TunAbi.TunFTsoEcn), ("TUN_F_UFO", TunAbi.TunFUfo), ("TUN_FLT_ALLMULTI", TunAbi.TunFltAllMulti),
            ("TUNSETIFF", TunAbi.TunSetIff.Number), ("TUNSETOFFLOAD", TunAbi.TunSetOffload.Number), ("TUNSETTXFILTER", TunAbi.TunSetTxFilter.Number),
            ("TUNGETIFF", TunAbi.TunGetIff.Number), ("TUNSETVNETHDRSZ", TunAbi.TunSetVnetHdrSz.Number), ("TUNSETQUEUE", TunAbi.TunSetQueue.Number),
            ("TUNSETVNETLE", TunAbi.TunSetVnetLe.Number), ("SIOCGIFFLAGS", TunAbi.SiocGIfFlags.Number), ("SIOCSIFFLAGS", TunAbi.SiocSIfFlags.Number),
            ("SIOCSIFMTU", TunAbi.SiocSIfMtu.Number),
            ("sizeof(struct ifreq)", Unsafe.SizeOf<IfReq>()), ("offsetof(struct ifreq, ifr_flags)", 16),
            ("offsetof(struct ifreq, ifr_mtu)", 16), ("IFNAMSIZ - 1", NetLimits.MaxInterfaceName), ("offsetof(struct tun_filter, addr)", 4),
        })
        {
            c.Append($"_Static_assert({name} == {value}, \"{name}\");\n");
        }
        CCompiler.Check(c.ToString());
    }
}
