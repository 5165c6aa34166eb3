using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Net;

/// <summary>struct ifreq of linux/if.h, with the members of its union that are used here.</summary>
[StructLayout(LayoutKind.Explicit, Size = 40)]
internal struct IfReq
{
    [FieldOffset(0)]
    private Bytes16 _name;

    [FieldOffset(16)]
    public short Flags;

    [FieldOffset(16)]
    public int Mtu;

    /// <summary>The interface's name.</summary>
    public string Name
    {
        readonly get
        {
            ReadOnlySpan<byte> bytes = _name;
            int end = bytes.IndexOf((byte)0);
            return Encoding.UTF8.GetString(end < 0 ? bytes : bytes[..end]);
        }
        set
        {
            Span<byte> bytes = _name;
            bytes.Clear();
            Encoding.UTF8.GetBytes(value, bytes[..NetLimits.MaxInterfaceName]);
        }
    }

    [InlineArray(16)]
    private struct Bytes16
    {
        private byte _element;
    }
}

/// <summary>Numbers of linux/if_tun.h, linux/sockios.h and linux/if.h; a test compares them with the headers.</summary>
internal static class TunAbi
{
    public const short IffTap = 0x0002;
    public const short IffNoPi = 0x1000;
    public const short IffVnetHdr = 0x4000;
    public const short IffMultiQueue = 0x0100;
    public const short IffAttachQueue = 0x0200;
    public const short IffDetachQueue = 0x0400;

    public const uint TunFCsum = 0x01;
    public const uint TunFTso4 = 0x02;
    public const uint TunFTso6 = 0x04;
    public const uint TunFTsoEcn = 0x08;
    public const uint TunFUfo = 0x10;

    public const ushort TunFltAllMulti = 0x0001;

    public const short IffUp = 0x1;

    private const byte Type = (byte)'T';

    // The argument's type is an int in the numbers, whatever it is.
    public static readonly IoctlRequest TunSetIff = IoctlRequest.Iow<int>(Type, 202, "TUNSETIFF");
    public static readonly IoctlRequest TunSetOffload = IoctlRequest.Iow<uint>(Type, 208, "TUNSETOFFLOAD");
    public static readonly IoctlRequest TunSetTxFilter = IoctlRequest.Iow<uint>(Type, 209, "TUNSETTXFILTER");
    public static readonly IoctlRequest TunGetIff = IoctlRequest.Ior<uint>(Type, 210, "TUNGETIFF");
    public static readonly IoctlRequest TunSetVnetHdrSz = IoctlRequest.Iow<int>(Type, 216, "TUNSETVNETHDRSZ");
    public static readonly IoctlRequest TunSetQueue = IoctlRequest.Iow<int>(Type, 217, "TUNSETQUEUE");
    public static readonly IoctlRequest TunSetVnetLe = IoctlRequest.Iow<int>(Type, 220, "TUNSETVNETLE");

    public static readonly IoctlRequest SiocGIfFlags = new(0x8913, "SIOCGIFFLAGS");
    public static readonly IoctlRequest SiocSIfFlags = new(0x8914, "SIOCSIFFLAGS");
    public static readonly IoctlRequest SiocGIfMtu = new(0x8921, "SIOCGIFMTU");
    public static readonly IoctlRequest SiocSIfMtu = new(0x8922, "SIOCSIFMTU");
}
