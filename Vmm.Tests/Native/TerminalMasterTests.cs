using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class TerminalMasterTests
{
    private static readonly byte[] s_everyByte = [.. Enumerable.Range(0, 256).Select(value => (byte)value)];

    [Test]
    public void Open_BytesInEitherDirection_ComeOutAsTheyAre()
    {
        using TerminalMaster master = TerminalMaster.Open();
        using FileDescriptor user = FileDescriptor.Open(master.Path, OpenMode.ReadWrite);

        Assert.That(user.TryWrite(s_everyByte), Is.EqualTo(s_everyByte.Length));
        Assert.That(Read(master), Is.EqualTo(s_everyByte));

        Assert.That(master.TryWrite(s_everyByte), Is.EqualTo(s_everyByte.Length));
        Assert.That(Read(user), Is.EqualTo(s_everyByte));
    }

    // All there is, once there are as many bytes as there are values.
    private static byte[] Read(FileDescriptor terminal)
    {
        var all = new List<byte>();
        byte[] chunk = new byte[1024];
        Eventually.True(
            () =>
            {
                int count = terminal.TryRead(chunk);
                all.AddRange(chunk.AsSpan(0, Math.Max(count, 0)));
                return all.Count >= s_everyByte.Length;
            },
            () => $"{all.Count} bytes came");
        return [.. all];
    }
}
