from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0004_looks'),
    ]

    operations = [
        migrations.AlterField(
            model_name='quotalimit',
            name='kind',
            field=models.CharField(choices=[('requests_per_minute', 'requests per minute'), ('concurrent_requests', 'concurrent requests'), ('tokens_per_minute', 'tokens per minute'), ('tokens_per_day', 'tokens per day'), ('tokens_per_month', 'tokens per month'), ('images_per_minute', 'images per minute'), ('images_per_day', 'images per day'), ('images_per_month', 'images per month'), ('megapixels_per_minute', 'megapixels per minute'), ('megapixels_per_day', 'megapixels per day'), ('megapixels_per_month', 'megapixels per month'), ('audio_seconds_per_minute', 'audio seconds per minute'), ('audio_seconds_per_day', 'audio seconds per day'), ('audio_seconds_per_month', 'audio seconds per month'), ('characters_per_minute', 'characters per minute'), ('characters_per_day', 'characters per day'), ('characters_per_month', 'characters per month'), ('points_per_minute', 'points per minute'), ('points_per_day', 'points per day'), ('points_per_month', 'points per month'), ('money_per_month', 'money per month'), ('gpu_seconds_per_month', 'device time per month')], max_length=30),
        ),
    ]
