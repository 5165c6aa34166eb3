using System.Diagnostics;
using System.Security.Cryptography;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>Socket devices: vhost-vsock.</summary>
public class VsockTests : DeviceTest
{
    private const int TransferSize = 64 << 20;
    private const int HostCid = 2;

    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(2);

    private static string Tool => LinuxGuest.Artifact("guest", "vsock");

    [Test]
    public void Transfer_BothWays_ArrivesUnchanged()
    {
        VmmProcess process = Boot(GuestWith(
            $"""
            vsock echo 5000 &
            vsock receive 5001 > /tmp/data
            echo data=$(sha256sum < /tmp/data)
            vsock send {HostCid} 5002 < /tmp/data && echo "sent"
            read -r end
            """,
            "--vsock", "cid=31") with
        { Memory = "512M" });
        byte[] data = RandomNumberGenerator.GetBytes(TransferSize);
        string hash = Convert.ToHexStringLower(SHA256.HashData(data));

        using Process receiver = HostCommand.Start(Tool, "receive", "5002");
        Task<byte[]> received = Task.Run(() => SHA256.HashData(receiver.StandardOutput.BaseStream));
        Assert.That(HostCommand.Run(Tool, "connect", "31", "5000", "200"), Is.EqualTo("200 connections\n"));
        using (Process sender = HostCommand.Start(Tool, "send", "31", "5001"))
        {
            sender.StandardInput.BaseStream.Write(data);
            sender.StandardInput.Close();
            Assert.That(sender.WaitForExit(s_deadline));
            Assert.That(sender.ExitCode, Is.Zero, sender.StandardError.ReadToEnd());
        }
        process.WaitForOutput("sent");
        Assert.That(received.Wait(s_deadline));
        process.Send("end\n"u8);
        VmmResult result = process.WaitForEnd();

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(ValueOf(result, "data"), Does.StartWith(hash), "what the guest received");
        Assert.That(Convert.ToHexStringLower(received.Result), Is.EqualTo(hash), "what the guest sent");
    }

    [Test]
    public void Guests_TwoAtOnce_AreToldApartAndNoneTakesTheOthersCid()
    {
        VmmProcess[] guests = [Echo(41), Echo(42)];
        foreach (int cid in new[] { 41, 42 })
            Assert.That(HostCommand.Run(Tool, "connect", $"{cid}", "5000", "5"), Is.EqualTo("5 connections\n"));

        VmmResult third = Echo(42).WaitForEnd();
        Assert.That(third.ExitCode, Is.EqualTo(1));
        Assert.That(third.Errors, Is.EqualTo("vmm: --vsock cid=42: cid=42 is in use by another guest: choose another\n"));

        foreach (VmmProcess guest in guests)
        {
            guest.Send("end\n"u8);
            VmmResult result = guest.WaitForEnd();
            Assert.That(result.ExitCode, Is.Zero, result.Summary);
        }

        VmmProcess Echo(int cid) => Boot(GuestWith("vsock echo 5000 &\nread -r end", "--vsock", $"cid={cid}"));
    }
}
